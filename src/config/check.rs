//! Checks what no single value can: names that must exist, addresses bound twice, values out of
//! bounds, plugins that do not fit their listener, files that must be there.
//!
//! In: the decoded configuration and its tree, for positions. Out: faults. Nothing is bound here.

mod certificates;
mod discover;
mod listeners;
mod plugins;
mod upstream;

pub(crate) use certificates::covers;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::decode::{DecodeError, Decoded};
use super::error::{echo, nearest};
use super::tree::{Node, Step};
use super::{AccessLog, Config};

/// Longest name of a node, pool, certificate or listener: it becomes a metrics label.
const MAX_NAME: usize = 64;

/// Longest token that is read from `token_file`.
const MAX_TOKEN: u64 = 4096;

/// Builds the path of a fault from keys and indexes.
macro_rules! steps {
    ($($step:expr),+ $(,)?) => { [$($crate::config::tree::Step::from($step)),+] };
}
use steps;

/// All names of the file, also of blocks that could not be decoded: those are known, only wrong.
pub(super) struct Names {
    nodes: Vec<String>,
    pools: Vec<String>,
    certificates: Vec<String>,
}

impl Names {
    /// Collects the names of `tree`, before anything is cut out of it.
    pub fn of(tree: &Node) -> Self {
        let keys = |word: &str| {
            tree.keys(&[Step::from(word)])
                .into_iter()
                .map(str::to_owned)
                .collect()
        };
        Names {
            nodes: keys("nodes"),
            pools: keys("pools"),
            certificates: keys("certificates"),
        }
    }

    fn is_target(&self, name: &str) -> bool {
        self.pools.iter().chain(&self.nodes).any(|n| n == name)
    }

    /// Every name a flow can be sent to.
    fn targets(&self) -> impl Iterator<Item = &String> {
        self.pools.iter().chain(&self.nodes)
    }
}

/// Checks `decoded` and returns what is wrong in it. `dir` is where relative paths start.
pub(super) fn check(
    config: &Config,
    decoded: &Decoded,
    tree: &Node,
    names: &Names,
    dir: &Path,
) -> Vec<DecodeError> {
    let mut check = Check {
        config,
        tree,
        names,
        dir,
        cut: &decoded.cut,
        found: Vec::new(),
    };
    check.names_are_labels();
    check.admin();
    check.log();
    discover::check(&mut check);
    upstream::check(&mut check);
    let covered = certificates::check(&mut check);
    listeners::check(&mut check);
    plugins::check(&mut check, &covered);
    check.found
}

/// What every check sees, and where it puts what it finds.
struct Check<'a> {
    config: &'a Config,
    tree: &'a Node,
    names: &'a Names,
    dir: &'a Path,
    cut: &'a [String],
    found: Vec<DecodeError>,
}

impl Check<'_> {
    /// Records a fault of the value at `path`.
    fn fault(&mut self, path: &[Step], message: impl Into<String>) -> Option<&mut DecodeError> {
        let place = self.tree.locate(path);
        if self.was_cut(&place.path) {
            return None;
        }
        self.found.push(DecodeError {
            place,
            on_key: false,
            message: message.into(),
            expected: None,
            suggestion: None,
        });
        self.found.last_mut()
    }

    /// Records a fault of the value at `path` with what was expected.
    fn expect(&mut self, path: &[Step], message: impl Into<String>, expected: impl Into<String>) {
        if let Some(error) = self.fault(path, message) {
            error.expected = Some(expected.into());
        }
    }

    /// Records a fault of the key at `path`: of the name itself, or of what its block lacks.
    fn on_key(&mut self, path: &[Step], message: impl Into<String>, expected: impl Into<String>) {
        if let Some(error) = self.fault(path, message) {
            error.on_key = true;
            error.expected = Some(expected.into());
        }
    }

    /// Records that the name at `path` is none of `known`.
    fn unknown<'n>(
        &mut self,
        path: &[Step],
        kind: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n String>,
    ) {
        if !self.names_are_known() {
            return;
        }
        if let Some(error) = self.fault(path, format!("unknown {kind} `{}`", echo(name))) {
            error.suggestion = nearest(name, known);
        }
    }

    /// Whether the value at `path`, as the file numbers it, or one inside it was already at fault.
    fn was_cut(&self, path: &str) -> bool {
        self.cut.iter().any(|cut| {
            cut.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Whether the sections that give names were readable; else every use of a name would be a fault.
    fn names_are_known(&self) -> bool {
        let sections = ["nodes", "pools", "certificates"];
        !self.cut.iter().any(|cut| sections.contains(&cut.as_str()))
    }

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

    /// Records a name that would need quoting in a metrics label, a log line or the admin API's paths.
    fn name(&mut self, path: &[Step], name: &str, on_key: bool) {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(word) {
            return;
        }
        if let Some(error) = self.fault(path, format!("name `{}`", echo(name))) {
            error.on_key = on_key;
            error.expected = Some(format!(
                "1 to {MAX_NAME} letters, digits, `_`, `-`, `.` of ASCII"
            ));
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
            None if !admin.bind.ip().is_loopback() && !self.was_cut("admin") => self.expect(
                &steps!["admin", "bind"],
                format!(
                    "`{}` can be reached from outside and no token is set",
                    admin.bind
                ),
                "a loopback address, or `token_file`",
            ),
            None => {}
        }
    }

    fn log(&mut self) {
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

/// Reads the first line of a token file, only to know that it is there. The token stays unsaid.
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
