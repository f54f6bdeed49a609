//! Joins the files that `include` names with the file that names them.
//!
//! In: the tree of the first file. Out: one tree, in which each value knows its file, and the faults found on the
//! way. Nodes, pools and certificates of all files are one block each, and the lists of listeners one list. What is
//! there twice is a fault: an order of files must decide nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::decode::describe;
use super::error::echo;
use super::read::{self, MAX_FILE};
use super::tree::{self, Environment, Kind, MAX_VALUES, Node, Position, Scalar, Step, TreeError};

/// Most included files. All of them are read at each reload.
const MAX_FILES: usize = 1000;

/// The end of the names of files that an included folder adds.
const ENDING: &str = ".yaml";

/// All files of a configuration.
pub(super) struct Joined {
    /// Their names as faults show them, in the order in which they were read.
    pub files: Vec<String>,
    pub errors: Vec<TreeError>,
    /// Whether all of them could be read to their end.
    pub is_whole: bool,
    bytes: u64,
}

/// A file to read.
struct Part {
    path: PathBuf,
    shown: String,
    /// Where it is included.
    at: Position,
    number: usize,
}

/// Joins into `tree`, read from `bytes` of the file `shown` in the folder `dir`, what it includes.
pub(super) fn join(
    tree: &mut Node,
    bytes: usize,
    (shown, dir): (&str, &Path),
    environment: Environment<'_>,
) -> Joined {
    let mut joined = Joined {
        files: vec![shown.to_owned()],
        errors: Vec::new(),
        is_whole: true,
        bytes: bytes as u64,
    };
    let name = Path::new(shown).file_name().unwrap_or_default();
    let mut seen: BTreeSet<_> = dir.join(name).canonicalize().ok().into_iter().collect();
    for part in parts(tree, shown, dir, environment, &mut joined) {
        let is_new = part
            .path
            .canonicalize()
            .map_or(true, |path| seen.insert(path));
        match is_new {
            _ if joined.bytes > MAX_FILE => break,
            true => joined.add(tree, &part),
            false => joined.refuse(&part, "is included twice, or includes itself", None),
        }
    }
    joined
}

/// Lists the files to read. Errors are recorded: a name that cannot be read, too many files.
fn parts(
    tree: &Node,
    shown: &str,
    dir: &Path,
    environment: Environment<'_>,
    joined: &mut Joined,
) -> Vec<Part> {
    let Some(mut include) = tree.child(&Step::from("include")).cloned() else {
        return Vec::new();
    };
    // What is wrong in the value itself is found with all other values.
    tree::expand(&mut include, environment);
    let Kind::List(items) = &include.kind else {
        return Vec::new();
    };
    let folder = Path::new(shown).parent().unwrap_or(Path::new(""));
    let mut parts = Vec::new();
    for item in items {
        let is_nothing = item.node.scalar() == Some(Scalar::Nothing);
        let Kind::Scalar { text, .. } = &item.node.kind else {
            continue;
        };
        if is_nothing {
            continue;
        }
        let part = |below: Option<&Path>| {
            let below =
                below.map_or_else(|| PathBuf::from(text), |name| Path::new(text).join(name));
            Part {
                path: dir.join(&below),
                shown: folder.join(below).display().to_string(),
                at: item.node.at,
                number: item.number,
            }
        };
        let whole = part(None);
        if !whole.path.is_dir() {
            parts.push(whole);
            continue;
        }
        match names(&whole.path) {
            Ok(names) => parts.extend(names.iter().map(|name| part(Some(name)))),
            Err(e) => joined.refuse(&whole, &format!("cannot be read: {e}"), None),
        }
    }
    if parts.len() > MAX_FILES {
        let message = format!("includes {} files", parts.len());
        joined.error(
            include.at,
            "include",
            message,
            Some(format!("at most {MAX_FILES}")),
        );
        joined.is_whole = false;
        parts.clear();
    }
    parts
}

/// Returns the names of a folder's files that end in [`ENDING`], in the order of their bytes. Hidden ones are left
/// out: they are those of editors and of Kubernetes' own.
fn names(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(ENDING.as_bytes()) && !bytes.starts_with(b".") {
            names.insert(PathBuf::from(name));
        }
    }
    Ok(names.into_iter().collect())
}

impl Joined {
    fn error(&mut self, at: Position, path: &str, message: String, expected: Option<String>) {
        self.errors.push(TreeError {
            at,
            path: path.to_owned(),
            message,
            expected,
        });
    }

    /// Records that a file cannot be part of the whole.
    fn refuse(&mut self, part: &Part, why: &str, expected: Option<String>) {
        let path = format!("include[{}]", part.number);
        let message = format!("`{}` {why}", echo(&part.shown));
        self.error(part.at, &path, message, expected);
        self.is_whole = false;
    }

    /// Reads one file and joins it.
    fn add(&mut self, whole: &mut Node, part: &Part) {
        let number = self.files.len();
        let text = match read::read(&part.path) {
            Ok(text) => text,
            Err(fault) if fault.line == 0 => {
                let expected = "a file, or a folder with files whose names end in `.yaml`";
                let expected = fault.expected.unwrap_or_else(|| expected.to_owned());
                return self.refuse(part, &fault.message, Some(expected));
            }
            Err(fault) => {
                self.files.push(part.shown.clone());
                let at = Position {
                    file: number,
                    line: fault.line,
                    column: fault.column,
                };
                self.is_whole = false;
                return self.error(at, "", fault.message, fault.expected);
            }
        };
        self.files.push(part.shown.clone());
        self.bytes += text.len() as u64;
        if self.bytes > MAX_FILE {
            let why = format!("is too much: all files have more than {MAX_FILE} bytes");
            return self.refuse(part, &why, None);
        }
        let (tree, errors) = tree::parse_part(&text);
        for mut error in errors {
            error.at.file = number;
            self.errors.push(error);
        }
        match tree {
            Some(mut tree) => {
                tree.is_of_file(number);
                self.merge(whole, tree);
            }
            None => self.is_whole = false,
        }
        if whole.count() > MAX_VALUES {
            let why = format!("is too much: all files have more than {MAX_VALUES} values");
            self.refuse(part, &why, None);
        }
    }

    fn merge(&mut self, whole: &mut Node, part: Node) {
        let Kind::Map(whole) = &mut whole.kind else {
            return;
        };
        let is_empty = part.scalar() == Some(Scalar::Nothing);
        let Kind::Map(entries) = part.kind else {
            if !is_empty {
                let expected = "a block of keys, as the first file is";
                let found = format!("found {}", describe(&part));
                self.error(part.at, "", found, Some(expected.to_owned()));
            }
            return;
        };
        for entry in entries {
            let key = entry.key.as_str();
            if key == "include" {
                let message = "an included file includes others".to_owned();
                let expected = format!("all of them in `include` of `{}`", echo(&self.files[0]));
                self.error(entry.at, key, message, Some(expected));
                continue;
            }
            match whole.iter_mut().find(|e| e.key == key) {
                None => whole.push(entry),
                Some(first) => match (&mut first.node.kind, entry.node.kind) {
                    (Kind::Map(all), Kind::Map(more)) if joins(key) => {
                        for one in more {
                            match all.iter().find(|e| e.key == one.key) {
                                Some(first) => self.twice(key, &one.key, first.at, one.at),
                                None => all.push(one),
                            }
                        }
                    }
                    (Kind::List(all), Kind::List(more)) if key == "listeners" => {
                        for mut item in more {
                            item.number = all.len();
                            all.push(item);
                        }
                    }
                    _ => {
                        let (at, first) = (entry.at, first.at);
                        let first = first.told(&self.files, at);
                        let message = format!("key `{}` is there twice, first {first}", echo(key));
                        self.error(at, key, message, None);
                    }
                },
            }
        }
    }

    fn twice(&mut self, block: &str, name: &str, first: Position, at: Position) {
        let first = first.told(&self.files, at);
        let message = format!("`{}` is there twice, first {first}", echo(name));
        let expected = "each name once in all files".to_owned();
        self.error(
            at,
            &format!("{block}.{}", echo(name)),
            message,
            Some(expected),
        );
    }
}

/// Whether the names of this block may be in several files.
fn joins(key: &str) -> bool {
    matches!(key, "nodes" | "pools" | "certificates")
}
