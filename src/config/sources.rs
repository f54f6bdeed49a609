//! Gathers the values of the configuration from where they are: its file, those it includes, and the environment.
//!
//! In: the text of the file. Out: one tree without variables, and the faults found on the way.

use std::path::Path;

use super::decode::DecodeError;
use super::error::{ConfigError, Severity};
use super::fault;
use super::include::{self, Joined};
use super::tree::{self, Environment, Node, Position, TreeError, Used};

/// The values of the configuration.
pub(super) struct Sources {
    /// The files, as faults show them.
    pub files: Vec<String>,
    /// All values; `None`: the text cannot be parsed to its end.
    pub tree: Option<Node>,
    pub errors: Vec<TreeError>,
    /// Paths of values that were cut because of an error.
    pub cut: Vec<String>,
    used: Vec<Used>,
}

impl Sources {
    /// Gathers from `text`, shown as `file` in faults, and from what it includes below `dir`.
    pub fn gather(text: &str, file: &str, dir: &Path, environment: Environment<'_>) -> Self {
        let (mut tree, mut errors) = tree::parse(text);
        let joined = tree
            .as_mut()
            .map(|tree| include::join(tree, text.len(), (file, dir), environment));
        let mut files = vec![file.to_owned()];
        if let Some(Joined {
            files: all,
            errors: mut more,
            is_whole,
            ..
        }) = joined
        {
            files = all;
            errors.append(&mut more);
            // Names in the missing part would be unknown.
            tree = tree.filter(|_| is_whole);
        }
        let expansion = tree.as_mut().map(|tree| tree::expand(tree, environment));
        let mut expansion = expansion.unwrap_or_default();
        errors.append(&mut expansion.errors);
        Sources {
            files,
            tree,
            errors,
            cut: expansion.cut,
            used: expansion.used,
        }
    }

    /// Returns the text that the program runs, if it is not the first file as it stands.
    pub fn rewritten(&self) -> Option<String> {
        match self.used.is_empty() && self.files.len() == 1 {
            true => None,
            false => self.tree.as_ref().map(Node::to_yaml),
        }
    }

    /// Returns the name of the file that has this place.
    pub fn file(&self, at: Position) -> &str {
        self.files.get(at.file).map_or("", |file| file)
    }

    /// Returns the values of the environment in the tree, each with the variable that it came from.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.used.iter().flat_map(Used::variables).collect()
    }

    /// Makes a fault of an error of the tree.
    pub fn fault(&self, e: TreeError) -> ConfigError {
        fault::of_tree(self.file(e.at), e)
    }

    /// Makes a fault of an error of the decoder or the checks. It shows no value of the environment.
    pub fn tell(&self, mut e: DecodeError) -> ConfigError {
        for used in &self.used {
            used.hide(&e.place.path, &mut e.message);
            if let Some(expected) = &mut e.expected {
                used.hide(&e.place.path, expected);
            }
        }
        let at = if e.on_key { e.place.key_at } else { e.place.at };
        fault::of_decoder(self.file(at), e)
    }

    /// As [`Sources::tell`], for a warning.
    pub fn warn(&self, e: DecodeError) -> ConfigError {
        ConfigError {
            severity: Severity::Warning,
            ..self.tell(e)
        }
    }

    /// Returns the fault for a place that the two readers read in two ways; `at` is its place in the text that
    /// serde_yaml read.
    pub fn differ(&self, rewritten: Option<&str>, at: Option<Position>) -> ConfigError {
        let at = at.unwrap_or(Position::new(1, 1));
        let read = rewritten.and_then(|text| tree::parse(text).0);
        let tree = self.tree.as_ref();
        let path = read.as_ref().or(tree).map(|read| read.around(at));
        let place = tree.zip(path).map(|(tree, path)| tree.locate(&path));
        let place = place.unwrap_or_default();
        let at = if rewritten.is_some() { place.at } else { at };
        // serde_yaml's message is for programmers; the operator gets the place only.
        let message = "two YAML readers differ about this place".to_owned();
        let expected = "a plainer spelling: short keys, quotes around text".to_owned();
        ConfigError {
            expected: Some(expected),
            ..fault::at(self.file(at), at, place.path, message)
        }
    }
}
