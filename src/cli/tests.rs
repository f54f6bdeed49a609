//! Tests of the command line's definition.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("pushgate").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    for (line, expected) in [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("check a.yaml -c b.yaml", ErrorKind::ArgumentConflict),
        ("check --json -T a.yaml", ErrorKind::ArgumentConflict),
        ("quick", ErrorKind::MissingRequiredArgument),
        ("-c", ErrorKind::InvalidValue),
        ("-c a.yaml check -c a.yaml", ErrorKind::ArgumentConflict),
        ("check -c a.yaml -d", ErrorKind::UnknownArgument),
        ("chek -c a.yaml", ErrorKind::InvalidSubcommand),
        ("demo --port 65536", ErrorKind::ValueValidation),
        ("demo --port -1", ErrorKind::UnknownArgument),
        ("drain", ErrorKind::MissingRequiredArgument),
        ("keys make both a.keys", ErrorKind::InvalidValue),
        ("keys rotate a.keys --keep 8", ErrorKind::ValueValidation),
        ("rebalance p --from ls1", ErrorKind::MissingRequiredArgument),
        (
            "rebalance p --to-even --from ls1 --share 5%",
            ErrorKind::ArgumentConflict,
        ),
        ("rebalance p --cancel --close", ErrorKind::ArgumentConflict),
        ("rebalance p --wait --dry-run", ErrorKind::ArgumentConflict),
        ("-c a.yaml -x", ErrorKind::UnknownArgument),
    ] {
        let e = parse(line).and_then(command).expect_err(line);
        assert_eq!((e.kind(), e.exit_code()), (expected, 2), "{line}: {e}");
    }
}

/// Aim: every spelling of a command line means what it says. Fails if the file, an option or the default is
/// lost in one form.
#[test]
fn both_forms_name_the_same_actions() {
    let named = || ConfFile {
        file: None,
        config: Some("a.yaml".into()),
    };
    let alone = || ConfFile {
        file: Some("a.yaml".into()),
        config: None,
    };
    let check = |conf, print| {
        Command::Check(CheckOptions {
            conf,
            print,
            ..CheckOptions::default()
        })
    };
    let run = |conf, daemon, upgrade| {
        Command::Run(RunOptions {
            conf,
            daemon,
            upgrade,
        })
    };
    for (line, expected) in [
        ("-c a.yaml -t", check(named(), false)),
        ("-c a.yaml -t -d", check(named(), false)),
        ("-T -c a.yaml", check(named(), true)),
        ("-t", check(ConfFile::default(), false)),
        ("check", check(ConfFile::default(), false)),
        ("check a.yaml", check(alone(), false)),
        ("check a.yaml -T", check(alone(), true)),
        ("check --conf a.yaml", check(named(), false)),
        ("check --config a.yaml", check(named(), false)),
        ("-c a.yaml", run(named(), false, false)),
        ("--config a.yaml", run(named(), false, false)),
        ("-c a.yaml -d", run(named(), true, false)),
        ("-d", run(ConfFile::default(), true, false)),
        ("-du -c a.yaml", run(named(), true, true)),
        ("run -c a.yaml -u", run(named(), false, true)),
        ("run a.yaml", run(alone(), false, false)),
        ("run", run(ConfFile::default(), false, false)),
        ("demo", Command::Demo { port: None }),
        ("demo --port 8080", Command::Demo { port: Some(8080) }),
    ] {
        assert_eq!(
            parse(line).and_then(command).expect(line),
            expected,
            "{line}"
        );
    }
}

/// Aim: the long form of `--version` says what the program is built from. Fails if a part is missing.
#[test]
fn the_version_says_what_it_is_built_from() {
    let long = version::long();
    assert!(long.starts_with(env!("CARGO_PKG_VERSION")), "{long}");
    let says = |word: &str| {
        let line = long.lines().find_map(|line| line.strip_prefix(word));
        line.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    assert!(says("OpenSSL: ") && says("Pingora: "), "{long}");
}

/// Aim: each example of the help is a legal command line. Fails if an option is renamed.
#[test]
fn examples_are_command_lines() {
    let mut tried = 0;
    for text in [
        examples::ALL,
        examples::RUN,
        examples::CHECK,
        examples::QUICK,
        examples::EXPLAIN,
        examples::SIMULATE,
        examples::KEYS,
        examples::ORDERS,
        examples::init(),
    ] {
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("  pushgate "))
        {
            // What the example does stands behind it, and where its output goes.
            let words = line.split("  ").next().unwrap_or_default();
            let words = words.split(" > ").next().unwrap_or_default();
            parse(words)
                .and_then(command)
                .unwrap_or_else(|e| panic!("{words}: {e}"));
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried} examples");
}
