//! Decodes the tree into [`Config`], and finds every fault in one run.
//!
//! In: the tree. Out: the configuration without its wrong values, the faults, and the paths that were cut.
//! serde stops at the first error. So the wrong value is cut out of the tree, and the rest is decoded again.
//! A missing value gets a stand-in, so that later faults are found too. A configuration with a stand-in is
//! checked but never run, because the missing value is a fault.

mod deserializer;

use serde::Deserialize;

use super::Config;
use super::error::{MAX_ERRORS, echo, echo_line, nearest};
use super::tree::{Entry, Kind, Node, Place, Step};
pub(super) use deserializer::describe;
use deserializer::{Error, What};

/// A fault of the decoder.
#[derive(Clone, Debug)]
pub(super) struct DecodeError {
    pub place: Place,
    pub on_key: bool,
    pub message: String,
    pub expected: Option<String>,
    pub suggestion: Option<String>,
}

/// The result of decoding.
pub(super) struct Decoded {
    /// All that could be decoded, with stand-ins for what was missing.
    pub config: Option<Config>,
    pub errors: Vec<DecodeError>,
    /// Paths of wrong and missing values, numbered as in the file. A check that reported something absent
    /// above one of them would repeat its fault.
    pub cut: Vec<String>,
}

/// Values tried in turn for a missing one, because its type is not known here.
const STAND_INS: [fn() -> Kind; 6] = [
    || Kind::Map(Vec::new()),
    || Kind::List(Vec::new()),
    // Port 0 conflicts with no other address.
    || text("127.0.0.1:0"),
    || text("http"),
    || text("1s"),
    || text("1"),
];

fn text(text: &str) -> Kind {
    Kind::Scalar {
        text: text.to_owned(),
        plain: true,
    }
}

/// Decodes with serde_yaml a text in which our reader found no fault. The result is what runs.
///
/// Errors: the two readers differ, for example on a key of more than 1,024 characters.
pub(super) fn authority(text: &str) -> Result<Config, serde_yaml::Error> {
    let text = serde_yaml::Deserializer::from_str(text);
    let config: Result<Config, _> = serde_yaml::with::singleton_map_recursive::deserialize(text);
    config.map(|mut config| {
        config.name_acme();
        config
    })
}

/// Decodes `tree`, and cuts its wrong values out. `cut` are the paths that were cut already.
pub(super) fn decode(tree: &mut Node, mut cut: Vec<String>) -> Decoded {
    let mut errors = Vec::new();
    loop {
        let e = match Config::deserialize(&*tree) {
            Ok(mut config) => {
                config.name_acme();
                return Decoded {
                    config: Some(config),
                    errors,
                    cut,
                };
            }
            Err(e) => e,
        };
        if errors.len() == MAX_ERRORS || !repair(tree, &e, &mut errors, &mut cut) {
            return Decoded {
                config: None,
                errors,
                cut,
            };
        }
    }
}

/// Records the fault behind `e`, and changes the tree so that it does not come again. False: the tree cannot
/// be changed.
fn repair(
    tree: &mut Node,
    e: &Error,
    errors: &mut Vec<DecodeError>,
    cut: &mut Vec<String>,
) -> bool {
    let path = e.path();
    if let Some(stand_in) = stand_in_above(tree, &path) {
        return next_stand_in(tree, &stand_in, cut);
    }
    if let What::Missing(key) = e.what {
        let missing = [path.as_slice(), &[Step::from(key)]].concat();
        let place = tree.locate(&missing);
        if !cut.contains(&place.path) {
            cut.push(place.path);
            errors.push(tell(tree, e));
        }
        let Some(Node {
            kind: Kind::Map(entries),
            at,
            ..
        }) = tree.find_mut(&path)
        else {
            return false;
        };
        let node = Node {
            at: *at,
            kind: STAND_INS[0](),
            stand_in: Some(0),
        };
        entries.push(Entry {
            key: key.to_owned(),
            at: *at,
            node,
        });
        return true;
    }
    let place = tree.locate(&path).path;
    // The block of an enum is empty after its only key was cut; that is no second fault.
    let emptied = matches!(tree.find(&path).map(|n| &n.kind), Some(Kind::Map(m)) if m.is_empty())
        && cut.iter().any(|c| {
            c.strip_prefix(&place)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        });
    if !emptied {
        let told = tell(tree, e);
        // The key that was probably meant is not also reported as missing.
        if let (What::Unknown { kind: "key", .. }, Some(key), Some((_, parent))) =
            (&e.what, &told.suggestion, path.split_last())
        {
            cut.push(
                tree.locate(&[parent, &[Step::from(key.as_str())]].concat())
                    .path,
            );
        }
        errors.push(told);
        cut.push(place);
    }
    tree.cut(&path)
}

/// Returns the path of the stand-in that `path` leads to or through.
fn stand_in_above(tree: &Node, path: &[Step]) -> Option<Vec<Step>> {
    (1..=path.len())
        .filter_map(|n| path.get(..n))
        .find(|part| tree.find(part).is_some_and(|node| node.stand_in.is_some()))
        .map(<[Step]>::to_vec)
}

/// Tries the next stand-in; after the last one, cuts what the missing value belongs to.
fn next_stand_in(tree: &mut Node, path: &[Step], cut: &mut Vec<String>) -> bool {
    let Some(node) = tree.find_mut(path) else {
        return false;
    };
    let next = node.stand_in.unwrap_or_default() + 1;
    match STAND_INS.get(next) {
        Some(kind) => {
            node.kind = kind();
            node.stand_in = Some(next);
            true
        }
        None => path.split_last().is_some_and(|(_, parent)| {
            cut.push(tree.locate(parent).path);
            tree.cut(parent)
        }),
    }
}

/// Puts `e` into words for the operator.
fn tell(tree: &Node, e: &Error) -> DecodeError {
    let path = e.path();
    let mut error = DecodeError {
        place: tree.locate(&path),
        on_key: e.on_key,
        message: String::new(),
        expected: None,
        suggestion: None,
    };
    match &e.what {
        What::Unknown { kind, word, known } => {
            error.message = format!("unknown {kind} `{}`", echo(word));
            error.suggestion = nearest(word, known.iter());
            let list = known
                .iter()
                .map(|w| format!("`{w}`"))
                .collect::<Vec<_>>()
                .join(", ");
            error.expected = Some(match known {
                [] => format!("no {kind} here"),
                [_] => list,
                _ => format!("one of {list}"),
            });
        }
        What::Missing(key) => {
            // People look for what a block lacks at its key, not at its first line.
            error.on_key = true;
            error.message = format!("key `{key}` is missing");
        }
        What::Found { found, expected } => {
            error.message = match tree.find(&path).map(|n| &n.kind) {
                // As the file writes it: `1e3`, not the number it stands for.
                Some(Kind::Scalar { text, plain }) if found.starts_with('`') => {
                    let quote = if *plain { "" } else { "\"" };
                    format!("found `{quote}{}{quote}`", echo(text))
                }
                _ => format!("found {found}"),
            };
            error.suggestion = truth(found, expected);
            error.expected = Some(in_words(expected));
        }
        What::Other(message) => {
            let found = match tree.find(&path).map(|n| &n.kind) {
                _ if e.on_key => path.last().and_then(|s| match s {
                    Step::Key(k) => Some(k.as_str()),
                    Step::Index(_) => None,
                }),
                Some(Kind::Scalar { text, .. }) => Some(text.as_str()),
                _ => None,
            };
            match (message.as_str(), found) {
                ("invalid socket address syntax", Some(text)) => {
                    error.message = format!("found `{}`", echo(text));
                    error.expected = Some(in_words("socket address"));
                }
                _ => error.message = echo_line(message),
            }
        }
    }
    mask(tree, &path, &mut error);
    error
}

/// Suggests a boolean for YAML 1.1's other words, which files of other programs use.
fn truth(found: &str, expected: &str) -> Option<String> {
    let word = match found.trim_matches('`').to_lowercase().as_str() {
        "yes" | "on" | "true" | "1" => "true",
        "no" | "off" | "false" | "0" => "false",
        _ => return None,
    };
    (expected == "a boolean").then(|| word.to_owned())
}

/// Translates serde's name of a type for the operator.
fn in_words(expected: &str) -> String {
    match expected {
        "socket address" => {
            "an address with its port, such as `10.0.0.1:80` or `\"[2001:db8::1]:80\"`"
        }
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list, such as `[a, b]`",
        "a map" => "a block of names, each with its value",
        "a string" | "string" => "text",
        "path string" => "a path",
        "a nonzero usize" => "a whole number from 1",
        other => return other.to_owned(),
    }
    .to_owned()
}

/// A value under a key with one of these words never appears in a message of this module.
const SECRET_WORDS: [&str; 4] = ["secret", "password", "key", "token"];

/// Replaces a secret value that `error` repeats.
fn mask(tree: &Node, path: &[Step], error: &mut DecodeError) {
    let secret = path.iter().any(|step| match step {
        Step::Key(k) => SECRET_WORDS
            .iter()
            .any(|word| k.to_lowercase().contains(word)),
        Step::Index(_) => false,
    });
    if let (true, Some(Kind::Scalar { text, .. })) = (secret, tree.find(path).map(|n| &n.kind)) {
        let shown = echo(text);
        if !shown.is_empty() {
            error.message = error.message.replace(&shown, "***");
        }
    }
}
