//! Checks what no single value shows: names that must exist, addresses bound twice, keys that contradict each
//! other, plugins that do not fit their listener, files that must exist.
//!
//! In: the decoded configuration and its tree, for positions. Out: faults. Nothing is bound here.

mod acme;
mod certificates;
mod checker;
mod discover;
mod listeners;
mod node_tls;
mod plugins;
mod process;
mod targets;
mod traps;
mod upstream;

pub(crate) use certificates::covers;
pub(super) use checker::Names;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use pushgate_plugins::unix::is_unix;

use checker::{Check, steps};

use super::decode::{DecodeError, Decoded};
use super::error::echo;
use super::tree::Node;
use super::{AccessLog, Config};

/// Longest line that is read from `token_file`, in bytes.
const MAX_TOKEN: u64 = 4096;

/// What the checks find.
pub(super) struct Found {
    /// What is wrong.
    pub errors: Vec<DecodeError>,
    /// What is legal, but does not do what it seems to.
    pub warnings: Vec<DecodeError>,
}

/// Checks `decoded` and returns what it finds. Relative paths are below `dir`.
pub(super) fn check(
    config: &Config,
    decoded: &Decoded,
    (tree, files): (&Node, &[String]),
    names: &Names,
    dir: &Path,
) -> Found {
    let mut check = Check {
        config,
        tree,
        files,
        names,
        dir,
        cut: &decoded.cut,
        found: Vec::new(),
        warned: Vec::new(),
    };
    check.names_are_labels();
    check.admin();
    check.log();
    process::check(&mut check);
    discover::check(&mut check);
    upstream::check(&mut check);
    let sound = certificates::check(&mut check);
    listeners::check(&mut check, &sound);
    plugins::check(&mut check, &sound.covered);
    if check.found.is_empty() && decoded.cut.is_empty() {
        traps::check(&mut check, &sound);
    }
    let place = |w: &DecodeError| if w.on_key { w.place.key_at } else { w.place.at };
    check.warned.sort_by_key(place);
    Found {
        errors: check.found,
        warnings: check.warned,
    }
}

impl Check<'_> {
    fn names_are_labels(&mut self) {
        let names = self.names;
        for (kind, list) in [
            ("nodes", &names.nodes),
            ("pools", &names.pools),
            ("certificates", &names.certificates),
        ] {
            for name in list {
                self.name(&steps![kind, name.as_str()], name, true);
            }
        }
        for name in names.pools.iter().filter(|pool| names.nodes.contains(pool)) {
            self.on_key(
                &steps!["pools", name.as_str()],
                format!("a node is also called `{}`", echo(name)),
                "one name for one thing: `to` could mean either",
            );
        }
    }

    fn admin(&mut self) {
        let Some(admin) = &self.config.admin else {
            return;
        };
        match &admin.token_file {
            Some(file) => {
                if let Err(message) = token(&self.dir.join(file)) {
                    let expected = "a file whose first line is the token";
                    self.expect(&steps!["admin", "token_file"], message, expected);
                }
            }
            None if !admin.bind.ip().is_loopback()
                && !is_unix(admin.bind.ip())
                && !self.was_cut("admin") =>
            {
                self.expect(
                    &steps!["admin", "bind"],
                    format!(
                        "`{}` can be reached from outside and no token is set",
                        admin.bind
                    ),
                    "a loopback address, or `token_file`",
                )
            }
            None => {}
        }
    }

    fn log(&mut self) {
        let log = &self.config.log;
        let is_journal = matches!(log.access, AccessLog::Journald(_));
        if log.format.is_some() && !log.fields.is_empty() && !is_journal {
            let expected = "one of them; a line of `format` has the fields that it names";
            self.on_key(
                &steps!["log", "format"],
                "both `fields` and `format`",
                expected,
            );
        }
        let AccessLog::File(file) = &self.config.log.access else {
            return;
        };
        let file = self.dir.join(file);
        if !file.parent().is_some_and(Path::is_dir) || file.is_dir() {
            self.expect(
                &steps!["log", "access", "file"],
                format!("`{}` cannot be written", echo(&file.display().to_string())),
                "a file in a folder that exists",
            );
        }
    }
}

/// Checks that the first line of a token file is not empty. Errors do not show the token.
fn token(file: &Path) -> Result<(), String> {
    let shown = echo(&file.display().to_string());
    let mut line = String::new();
    File::open(file)
        .and_then(|f| BufReader::new(f.take(MAX_TOKEN)).read_line(&mut line))
        .map_err(|e| format!("`{shown}` cannot be read: {e}"))?;
    match line.trim().is_empty() {
        true => Err(format!("the first line of `{shown}` is empty")),
        false => Ok(()),
    }
}
