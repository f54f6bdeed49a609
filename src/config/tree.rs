//! The file as a tree of values, each with its line and column.
//!
//! In: YAML text (`build`). Out: [`Node`]s, found and cut by path, and reported with the path and position
//! that the operator sees.

mod build;
mod environment;
mod scalar;
mod write;

pub(super) use build::{MAX_VALUES, parse, parse_part};
pub(super) use environment::{Environment, Used, expand};
pub(super) use scalar::Scalar;

/// A place in a file: line and column from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Which of the files it is in, in the order in which they are read; 0 is the first.
    pub file: usize,
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// Returns the place of this text in the first file.
    pub fn new(line: usize, column: usize) -> Self {
        Position {
            file: 0,
            line,
            column,
        }
    }

    /// Names the line in a message about a value at `here`; with its file if it is another one.
    pub fn told(self, files: &[String], here: Position) -> String {
        match files.get(self.file) {
            Some(file) if self.file != here.file => format!("in line {} of `{file}`", self.line),
            _ => format!("in line {}", self.line),
        }
    }
}

/// One value.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it starts.
    pub at: Position,
    pub kind: Kind,
    /// Which stand-in this is, if the decoder put it in place of a missing value.
    pub stand_in: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Text. `plain`: without quotes, so that it may mean a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Item>),
    Map(Vec<Entry>),
}

/// A list's element with its number in the file, which stays when the decoder cuts another element.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub number: usize,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    /// Where the key starts.
    pub at: Position,
    pub node: Node,
}

/// A fault of the tree: why YAML, our limits on it, or the environment forbid a value.
#[derive(Clone, Debug)]
pub(super) struct TreeError {
    pub at: Position,
    pub path: String,
    pub message: String,
    pub expected: Option<String>,
}

/// One step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Position in the list as the tree is now, from 0.
    Index(usize),
    Key(String),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Step::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// A place in the tree: its path, numbered as in the file, and where its value and its key start.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub path: String,
    pub at: Position,
    pub key_at: Position,
}

impl Node {
    /// Returns the value one step below.
    pub fn child(&self, step: &Step) -> Option<&Node> {
        match (&self.kind, step) {
            (Kind::List(items), Step::Index(i)) => items.get(*i).map(|item| &item.node),
            (Kind::Map(entries), Step::Key(k)) => {
                entries.iter().find(|e| e.key == *k).map(|e| &e.node)
            }
            _ => None,
        }
    }

    /// Returns the value at `path`.
    pub fn find(&self, path: &[Step]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| node.child(step))
    }

    /// As [`Node::find`], to change the value.
    pub fn find_mut(&mut self, path: &[Step]) -> Option<&mut Node> {
        path.iter()
            .try_fold(self, |node, step| match (&mut node.kind, step) {
                (Kind::List(items), Step::Index(i)) => items.get_mut(*i).map(|item| &mut item.node),
                (Kind::Map(entries), Step::Key(k)) => entries
                    .iter_mut()
                    .find(|e| e.key == *k)
                    .map(|e| &mut e.node),
                _ => None,
            })
    }

    /// Cuts the value at `path` out of its list or map. False: there is none, or it is the root.
    pub fn cut(&mut self, path: &[Step]) -> bool {
        let Some((last, parent)) = path.split_last() else {
            return false;
        };
        match (self.find_mut(parent).map(|node| &mut node.kind), last) {
            (Some(Kind::List(items)), Step::Index(i)) if *i < items.len() => {
                items.remove(*i);
                true
            }
            (Some(Kind::Map(entries)), Step::Key(k)) => {
                let before = entries.len();
                entries.retain(|e| e.key != *k);
                entries.len() < before
            }
            _ => false,
        }
    }

    /// Returns the place of `path`. A step that does not exist has the place of the last one that does.
    pub fn locate(&self, path: &[Step]) -> Place {
        let mut place = Place {
            at: self.at,
            key_at: self.at,
            path: String::new(),
        };
        let mut node = Some(self);
        for step in path {
            let shown = match (node.map(|n| &n.kind), step) {
                (Some(Kind::List(items)), Step::Index(i)) => {
                    format!("[{}]", items.get(*i).map_or(*i, |item| item.number))
                }
                (_, Step::Index(i)) => format!("[{i}]"),
                (_, Step::Key(k)) => show_key(k, place.path.is_empty()),
            };
            place.path.push_str(&shown);
            if let (Some(Kind::Map(entries)), Step::Key(k)) = (node.map(|n| &n.kind), step) {
                place.key_at = entries
                    .iter()
                    .find(|e| e.key == *k)
                    .map_or(place.key_at, |e| e.at);
            }
            node = node.and_then(|n| n.child(step));
            place.at = node.map_or(place.at, |n| n.at);
            if let (Some(found), Step::Index(_)) = (node, step) {
                place.key_at = found.at;
            }
        }
        place
    }

    /// Returns the meaning of a scalar; `None` for a list or map.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => Some(Scalar::of(text)),
            Kind::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// Returns the path of the value that contains `at`: on each level the last that does not start after it.
    pub fn around(&self, at: Position) -> Vec<Step> {
        let mut path = Vec::new();
        let mut node = self;
        loop {
            let below = match &node.kind {
                Kind::Scalar { .. } => None,
                Kind::List(items) => {
                    let mut before = items.iter().enumerate().filter(|(_, i)| i.node.at <= at);
                    before
                        .next_back()
                        .map(|(i, item)| (Step::Index(i), &item.node))
                }
                Kind::Map(entries) => {
                    let mut before = entries.iter().filter(|e| e.at <= at);
                    before
                        .next_back()
                        .map(|e| (Step::Key(e.key.clone()), &e.node))
                }
            };
            let Some((step, child)) = below else {
                return path;
            };
            path.push(step);
            node = child;
        }
    }

    /// Returns the keys of the map at `path`; none if it is no map.
    pub fn keys(&self, path: &[Step]) -> Vec<&str> {
        match self.find(path).map(|n| &n.kind) {
            Some(Kind::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Notes that this value, and all inside it, are in this file.
    pub fn is_of_file(&mut self, file: usize) {
        self.at.file = file;
        match &mut self.kind {
            Kind::Scalar { .. } => {}
            Kind::List(items) => items.iter_mut().for_each(|i| i.node.is_of_file(file)),
            Kind::Map(entries) => entries.iter_mut().for_each(|e| {
                e.at.file = file;
                e.node.is_of_file(file);
            }),
        }
    }

    /// Counts this value, and all keys and values inside it.
    pub fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List(items) => items.iter().map(|i| i.node.count()).sum(),
            Kind::Map(entries) => entries.iter().map(|e| 1 + e.node.count()).sum(),
        }
    }
}

/// Formats a key for a path: bare if it is a word, otherwise quoted.
fn show_key(key: &str, first: bool) -> String {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    match (!key.is_empty() && key.chars().all(word), first) {
        (true, true) => key.to_owned(),
        (true, false) => format!(".{key}"),
        _ => format!("[\"{}\"]", super::error::echo(key)),
    }
}
