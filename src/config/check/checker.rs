//! Gives each check the configuration, and collects the faults it finds.
//!
//! In: the decoded configuration, its tree and all its names. Out: faults, each at its place; none for a
//! value that already has one.

use std::path::Path;

use crate::config::Config;
use crate::config::decode::DecodeError;
use crate::config::error::{echo, nearest, one_of};
use crate::config::tree::{Node, Step};

/// Longest name of a node, pool, certificate or listener: it becomes a metrics label.
const MAX_NAME: usize = 64;

/// Builds the path of a fault from keys and indexes.
macro_rules! steps {
    ($($step:expr),+ $(,)?) => { [$($crate::config::tree::Step::from($step)),+] };
}
pub(super) use steps;

/// All names of the file, including those of blocks that could not be decoded.
pub(in crate::config) struct Names {
    pub(super) nodes: Vec<String>,
    pub(super) pools: Vec<String>,
    pub(super) certificates: Vec<String>,
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

    pub(super) fn is_target(&self, name: &str) -> bool {
        self.pools.iter().chain(&self.nodes).any(|n| n == name)
    }

    /// Iterates over every name to which a flow can be sent.
    pub(super) fn targets(&self) -> impl Iterator<Item = &String> {
        self.pools.iter().chain(&self.nodes)
    }
}

/// What every check reads, and the faults found so far.
pub(super) struct Check<'a> {
    pub config: &'a Config,
    pub tree: &'a Node,
    /// The files of the tree, as faults show them.
    pub files: &'a [String],
    pub names: &'a Names,
    pub dir: &'a Path,
    pub cut: &'a [String],
    pub found: Vec<DecodeError>,
    pub warned: Vec<DecodeError>,
}

impl Check<'_> {
    /// Records a fault of the value at `path`.
    pub fn fault(&mut self, path: &[Step], message: impl Into<String>) -> Option<&mut DecodeError> {
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
    pub fn expect(
        &mut self,
        path: &[Step],
        message: impl Into<String>,
        expected: impl Into<String>,
    ) {
        if let Some(error) = self.fault(path, message) {
            error.expected = Some(expected.into());
        }
    }

    /// Records a fault of the key at `path`: of the name itself, or of what its block lacks.
    pub fn on_key(
        &mut self,
        path: &[Step],
        message: impl Into<String>,
        expected: impl Into<String>,
    ) {
        if let Some(error) = self.fault(path, message) {
            error.on_key = true;
            error.expected = Some(expected.into());
        }
    }

    /// Records a warning about the value at `path`.
    pub fn warn(&mut self, path: &[Step], message: &str, expected: &str) {
        self.warned.push(DecodeError {
            place: self.tree.locate(path),
            on_key: false,
            message: message.to_owned(),
            expected: Some(expected.to_owned()),
            suggestion: None,
        });
    }

    /// Records a warning about the key at `path`.
    pub fn warn_key(&mut self, path: &[Step], message: &str, expected: &str) {
        self.warn(path, message, expected);
        if let Some(warning) = self.warned.last_mut() {
            warning.on_key = true;
        }
    }

    /// Records that the name at `path` is none of `known`.
    pub fn unknown<'n>(
        &mut self,
        path: &[Step],
        kind: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n String>,
    ) {
        if !self.names_are_known() {
            return;
        }
        let known: Vec<&String> = known.into_iter().collect();
        if let Some(error) = self.fault(path, format!("unknown {kind} `{}`", echo(name))) {
            error.suggestion = nearest(name, &known);
            if error.suggestion.is_none() {
                error.expected = one_of(&known);
            }
        }
    }

    /// Whether the value at `path`, numbered as in the file, or one inside it, already has a fault.
    pub fn was_cut(&self, path: &str) -> bool {
        self.cut.iter().any(|cut| {
            cut.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Whether the sections with names were decoded. Otherwise every use of a name would be a fault.
    pub fn names_are_known(&self) -> bool {
        let sections = ["nodes", "pools", "certificates"];
        !self.cut.iter().any(|cut| sections.contains(&cut.as_str()))
    }

    /// Records a name that would need quoting in a metrics label, a log line or the admin API's paths.
    pub fn name(&mut self, path: &[Step], name: &str, on_key: bool) {
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
}
