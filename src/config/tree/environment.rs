//! Puts variables of the environment into the values of the tree: `${NAME}` and `${NAME:-default}`.
//!
//! In: the tree, and a function that knows the variables. Out: the tree with their values, and what was put where.
//! A value is put into one scalar and is not parsed as YAML, so it cannot add keys. Without quotes it means what
//! the same text means in the file: a number, a boolean, nothing or text. Keys stay as they are.

use std::ffi::OsString;

use super::{Kind, Node, Position, Step, TreeError};
use crate::config::error::echo;

/// Most bytes of all values with variables in them: as many as the largest file. A variable may have 128 KiB, and a
/// file could use it ten thousand times.
const MAX_EXPANDED: usize = 1024 * 1024;

/// Looks a variable up; `None`: it is not set.
pub(in crate::config) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What was put into a tree.
#[derive(Default)]
pub(in crate::config) struct Expansion {
    pub errors: Vec<TreeError>,
    /// Paths of the values that were cut, because they have an error here.
    pub cut: Vec<String>,
    pub used: Vec<Used>,
}

/// A value of the file that has variables in it.
pub(in crate::config) struct Used {
    path: String,
    /// What a message shows instead of what: the whole value first, then its variables.
    shown: Vec<(String, String)>,
}

impl Used {
    /// Returns the values that are in it, each with its variable as the file writes it.
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.shown.iter().skip(1).cloned()
    }

    /// Puts the variables' names in place of their values, in a message about the value at `path` or above it: a
    /// value of the environment may be a secret.
    pub fn hide(&self, path: &str, message: &mut String) {
        let below = self.path.strip_prefix(path);
        if below
            .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
        {
            for (value, name) in self.shown.iter().filter(|(value, _)| !value.is_empty()) {
                *message = message.replace(value, name);
            }
        }
    }
}

/// Puts variables into all values of `tree`. A value with an error is cut.
pub(in crate::config) fn expand(tree: &mut Node, environment: Environment<'_>) -> Expansion {
    let mut walk = Walk {
        environment,
        found: Vec::new(),
        bytes: 0,
    };
    walk.node(tree, &mut Vec::new());
    let mut expansion = Expansion::default();
    let places: Vec<_> = walk.found.iter().map(|f| tree.locate(&f.path)).collect();
    for (found, place) in walk.found.iter().zip(&places) {
        match &found.what {
            Ok(shown) => expansion.used.push(Used {
                path: place.path.clone(),
                shown: shown.clone(),
            }),
            Err((message, expected)) => {
                expansion.errors.push(TreeError {
                    at: found.at,
                    path: place.path.clone(),
                    message: message.clone(),
                    expected: expected.map(str::to_owned),
                });
                expansion.cut.push(place.path.clone());
            }
        }
    }
    // From the last one, because a cut moves what comes after it in a list.
    for found in walk.found.iter().rev().filter(|f| f.what.is_err()) {
        tree.cut(&found.path);
    }
    expansion
}

type Wrong = (String, Option<&'static str>);

struct Found {
    path: Vec<Step>,
    at: Position,
    what: Result<Vec<(String, String)>, Wrong>,
}

struct Walk<'e> {
    environment: Environment<'e>,
    found: Vec<Found>,
    bytes: usize,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, here: &mut Vec<Step>) {
        match &mut node.kind {
            Kind::Scalar { text, .. } if text.contains("${") => {
                let what = self.text(text).map(|(expanded, mut shown)| {
                    let written = std::mem::replace(text, expanded);
                    // A message shows a long value up to some length only.
                    shown.insert(0, (echo(text), echo(&written)));
                    shown
                });
                self.found.push(Found {
                    path: here.clone(),
                    at: node.at,
                    what,
                });
            }
            Kind::Scalar { .. } => {}
            Kind::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    here.push(Step::Index(i));
                    self.node(&mut item.node, here);
                    here.pop();
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    here.push(Step::from(entry.key.as_str()));
                    self.node(&mut entry.node, here);
                    here.pop();
                }
            }
        }
    }

    /// Returns `text` with its variables' values, and each value with its name.
    fn text(&mut self, text: &str) -> Result<(String, Vec<(String, String)>), Wrong> {
        let (mut expanded, mut shown) = (String::new(), Vec::new());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, variable) = rest.split_at(start);
            let variable = variable.strip_prefix("${").unwrap_or_default();
            if let Some(before) = before.strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                rest = variable;
                continue;
            }
            expanded.push_str(before);
            let form = Some("`${NAME}` or `${NAME:-default}`; `$${` is the text `${`");
            let Some((inside, after)) = variable.split_once('}') else {
                return Err(("`${` without `}`".to_owned(), form));
            };
            let value = self.value(inside).map_err(|e| {
                e.unwrap_or_else(|| (format!("found `${{{}}}`", echo(inside)), form))
            })?;
            expanded.push_str(&value);
            self.bytes += value.len();
            if self.bytes > MAX_EXPANDED {
                let message = format!("more than {MAX_EXPANDED} bytes from the environment");
                return Err((message, None));
            }
            // A value of a few characters is no secret, and is part of many words.
            if value.chars().count() > 3 {
                shown.push((value, format!("${{{inside}}}")));
            }
            rest = after;
        }
        expanded.push_str(rest);
        Ok((expanded, shown))
    }

    /// Returns the value of what is inside the braces. Errors: `None` if it has another form.
    fn value(&self, inside: &str) -> Result<String, Option<Wrong>> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || !name.chars().all(word)
            || name.starts_with(|c: char| c.is_ascii_digit())
            || default.is_some_and(|d| d.contains("${"))
        {
            return Err(None);
        }
        let Some(value) = (self.environment)(name) else {
            let message = format!("environment variable `{}` is not set", echo(name));
            let expected = "the variable, or a default: `${NAME:-default}`";
            return default
                .map(str::to_owned)
                .ok_or(Some((message, Some(expected))));
        };
        match (value.into_string(), default) {
            (Ok(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
            (Ok(value), _) => Ok(value),
            (Err(_), _) => {
                let message = format!("environment variable `{}` is not UTF-8", echo(name));
                Err(Some((message, Some("UTF-8 text"))))
            }
        }
    }
}
