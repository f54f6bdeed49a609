//! Finds where a key of the file is: `edge.yaml:21:5: listeners[0].to`.
//!
//! In: a path of keys and list positions. Out: the place of its last step that is in the file.

use std::path::Path;

use super::error::{ConfigError, Severity};
use super::fault;
use super::sources::Sources;
use super::tree::{Kind, Place, Step};

/// The places of a configuration that was read without a fault.
pub struct Places(Sources);

impl Places {
    /// The places of what was gathered.
    pub(super) fn new(sources: Sources) -> Places {
        Places(sources)
    }

    /// Finds the places of `text`, shown as `file`, which includes nothing.
    pub fn parse(text: &str, file: &str) -> Places {
        let dir = Path::new("");
        Places(Sources::gather(text, file, dir, &|name| {
            std::env::var_os(name)
        }))
    }

    /// Returns the place of the key at `path`, in which a number is a position in a list. For a key that is
    /// not in the file it is the place of the block that lacks it.
    pub fn of<S: AsRef<str>>(&self, path: impl IntoIterator<Item = S>) -> String {
        match self.place(path) {
            None => self.0.files.first().cloned().unwrap_or_default(),
            Some(place) => {
                let (line, column) = (place.key_at.line, place.key_at.column);
                format!(
                    "{}:{line}:{column}: {}",
                    self.0.file(place.key_at),
                    place.path
                )
            }
        }
    }

    /// Returns a warning about the key at `path`, placed as [`Places::of`] does.
    pub fn warning<S: AsRef<str>>(
        &self,
        path: impl IntoIterator<Item = S>,
        message: String,
        expected: Option<String>,
    ) -> ConfigError {
        let place = self.place(path).unwrap_or_default();
        let file = self.0.file(place.key_at);
        ConfigError {
            expected,
            severity: Severity::Warning,
            ..fault::at(file, place.key_at, place.path, message)
        }
    }

    fn place<S: AsRef<str>>(&self, path: impl IntoIterator<Item = S>) -> Option<Place> {
        let tree = self.0.tree.as_ref()?;
        let mut steps = Vec::new();
        for step in path {
            let is_list = matches!(tree.find(&steps).map(|n| &n.kind), Some(Kind::List(_)));
            let step = match step.as_ref().parse::<usize>() {
                Ok(index) if is_list => Step::Index(index),
                _ => Step::from(step.as_ref()),
            };
            steps.push(step);
            if tree.find(&steps).is_none() {
                steps.pop();
                break;
            }
        }
        Some(tree.locate(&steps))
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn a_key_is_told_by_its_line_and_a_default_by_its_block() {
        let text = "nodes:\n  a: { address: 127.0.0.1:1 }\nlisteners:\n  - name: x\n    to: a\n";
        let places = Places::parse(text, "f.yaml");
        for (path, want) in [
            ("listeners.0.to", "f.yaml:5:5: listeners[0].to"),
            ("listeners.0", "f.yaml:4:5: listeners[0]"),
            ("nodes.a.weight", "f.yaml:2:3: nodes.a"),
            ("pools.p", "f.yaml:1:1: "),
        ] {
            assert_eq!(places.of(path.split('.')), want, "{path}");
        }
    }
}
