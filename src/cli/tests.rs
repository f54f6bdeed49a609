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
        ("check", ErrorKind::MissingRequiredArgument),
        ("run -d", ErrorKind::MissingRequiredArgument),
        ("-t", ErrorKind::MissingRequiredArgument),
        ("-c", ErrorKind::InvalidValue),
        ("-c a.yaml check -c a.yaml", ErrorKind::ArgumentConflict),
        ("check -c a.yaml -d", ErrorKind::UnknownArgument),
        ("chek -c a.yaml", ErrorKind::InvalidSubcommand),
        ("demo --port 65536", ErrorKind::ValueValidation),
        ("demo --port -1", ErrorKind::UnknownArgument),
        ("drain", ErrorKind::MissingRequiredArgument),
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

#[test]
fn both_forms_name_the_same_actions() {
    let options = |daemon, upgrade| RunOptions {
        conf: "a.yaml".into(),
        daemon,
        upgrade,
    };
    for (line, expected) in [
        (
            "-c a.yaml -t",
            Command::Check {
                conf: "a.yaml".into(),
                lightstreamer: Vec::new(),
            },
        ),
        (
            "-c a.yaml -t -d",
            Command::Check {
                conf: "a.yaml".into(),
                lightstreamer: Vec::new(),
            },
        ),
        (
            "check --conf a.yaml",
            Command::Check {
                conf: "a.yaml".into(),
                lightstreamer: Vec::new(),
            },
        ),
        ("-c a.yaml", Command::Run(options(false, false))),
        ("-c a.yaml -d", Command::Run(options(true, false))),
        ("-du -c a.yaml", Command::Run(options(true, true))),
        ("run -c a.yaml -u", Command::Run(options(false, true))),
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
