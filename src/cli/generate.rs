//! Writes the man pages and the completions of shells from the definition of the command line.
//!
//! In: which of the two, and a folder. Out: files in it, for `make install` and the packages.

use std::path::{Path, PathBuf};

use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// Shells that get completions: those that Debian has a folder for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Kind of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `pushgate.1` and one page for each subcommand, `pushgate-run.1`.
    Man,
    /// `pushgate.bash`, `pushgate.fish` and `_pushgate` for zsh.
    Completions,
}

/// Writes the files of one kind into `folder`, which is created if missing. Returns one line for each file.
///
/// Errors: the folder or a file cannot be written.
pub fn generate(mut command: Command, kind: Kind, folder: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let files: Vec<PathBuf> = match kind {
        Kind::Man => pages(command)
            .into_iter()
            .map(|page| clap_mangen::Man::new(page).generate_to(folder))
            .collect::<Result<_, _>>(),
        Kind::Completions => SHELLS
            .iter()
            .map(|shell| clap_complete::generate_to(*shell, &mut command, "pushgate", folder))
            .collect(),
    }
    .map_err(failed)?;
    let lines = files.iter().map(|file| format!("{}\n", file.display()));
    Ok(lines.collect())
}

/// Returns the command and its visible subcommands, each named as its page is.
fn pages(mut command: Command) -> Vec<Command> {
    command.build();
    let name = command.get_name().to_owned();
    let shown = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
    let subs: Vec<Command> = command
        .get_subcommands()
        .filter(shown)
        .map(|sub| {
            let page = format!("{name}-{}", sub.get_name());
            // The synopsis has the name as it is typed, with a blank.
            sub.clone().display_name(page)
        })
        .collect();
    // `build` adds `help`, which would be a page that does not exist.
    let command = command.disable_help_subcommand(true);
    std::iter::once(command).chain(subs).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn written(kind: Kind) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().expect("a folder");
        // Below the folder, so that it has to be created.
        let folder = dir.path().join("new");
        generate(Cli::command(), kind, &folder).expect("the files");
        let entries = std::fs::read_dir(&folder).expect("the folder is there");
        let mut all: Vec<_> = entries
            .map(|entry| {
                let entry = entry.expect("an entry");
                let text = std::fs::read_to_string(entry.path()).expect("text");
                (entry.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        all.sort();
        all
    }

    /// Aim: a folder that cannot be made is an error that names it. Fails if the error is lost.
    #[test]
    fn an_unwritable_folder_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let below = file.path().join("man");
        let said = generate(Cli::command(), Kind::Man, &below).expect_err("below a file");
        assert!(said.starts_with(&below.display().to_string()), "{said}");
    }

    /// Aim: each subcommand that help shows has its page, and no other. Fails if one is left out, or if a
    /// hidden one gets a page.
    #[test]
    fn each_subcommand_has_a_page() {
        let pages = written(Kind::Man);
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        let command = Cli::command();
        let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let mut expected: Vec<String> = subs
            .map(|s| format!("pushgate-{}.1", s.get_name()))
            .collect();
        expected.push("pushgate.1".to_owned());
        expected.sort();
        assert_eq!(names, expected);
        let run = pages.iter().find(|(name, _)| name == "pushgate-run.1");
        let (_, run) = run.expect("the page of `run`");
        assert!(
            run.contains("upgrade") && run.contains("pushgate run"),
            "{run}"
        );
    }

    /// Aim: each shell completes subcommands. Fails if a shell is left out.
    #[test]
    fn each_shell_completes_subcommands() {
        let files = written(Kind::Completions);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["_pushgate", "pushgate.bash", "pushgate.fish"]);
        for (name, text) in files {
            assert!(text.contains("rebalance"), "{name}");
        }
    }
}
