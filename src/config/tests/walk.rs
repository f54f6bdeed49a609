//! Gives each key of the reference each kind of wrong value: the faults have our words and the value's place.

use std::collections::BTreeSet;

use super::page::{Change, Page, near, paths};
use super::reference::everything;
use super::{Config, files};
use crate::config::decode::decode;
use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::tree::{self, Node, Step};

/// Values of every kind, as YAML writes them. A key takes at most a few of them.
const VALUES: &[&str] = &[
    // Text, with and without quotes.
    "word",
    "\"a b\"",
    "\"\"",
    "\"02\"",
    // Numbers: zero, octal to some, hexadecimal, negative, with a fraction, too large for a type.
    "0",
    "02",
    "0x10",
    "-1",
    "1.5",
    "65536",
    "18446744073709551616",
    // A boolean to other programs only.
    "True",
    // Nothing.
    "~",
    // Lists and blocks.
    "[]",
    "[[]]",
    "[word]",
    "{}",
    "{ \"?\": [] }",
    // Numbers with units, out of all bounds.
    "0s",
    "9999999d",
    "99999TiB",
    "150%",
    "0/s",
    "127.0.0.1:99999",
    // A tag.
    "!foo [1]",
];

/// No key takes one of these.
const WRONG_EVERYWHERE: [&str; 3] = ["[[]]", "{ \"?\": [] }", "!foo [1]"];

/// Values that say nothing: their fault may be at the block around the key.
const LEFT_OUT: [&str; 3] = ["{}", "[]", "~"];

/// Words of serde's messages. None may reach the operator.
const SERDE: &[&str] = &[
    "invalid type",
    "invalid value",
    "invalid length",
    "missing field",
    "unknown variant",
    "unknown field",
    "duplicate field",
    "expected struct",
    "expected enum",
    "expected variant",
    "a sequence",
    "a map",
    "a string",
    "path string",
    "a boolean",
    "integer `",
    "string \"",
    "floating point",
    "unit value",
    "boolean `",
    "newtype",
    "tuple",
    "socket address",
    "nonzero",
    "data did not match",
    "EOF",
    "EndOf",
    "at line ",
    "at position ",
];

/// Names of serde's types, as words.
const TYPES: [&str; 14] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "isize", "f32", "f64",
    "char",
];

/// Blocks whose keys are names that the operator chose.
const NAMES: [&str; 11] = [
    "nodes",
    "pools",
    "certificates",
    "by_vip",
    "hosts",
    "vips",
    "names",
    "paths",
    "set",
    "add",
    "listeners",
];

struct Walk {
    tree: Node,
    dir: tempfile::TempDir,
}

impl Walk {
    fn new() -> Self {
        let text = everything().replace("PUSH_KEYSTORE_PASSWORD", "CARGO_PKG_NAME");
        Walk {
            tree: tree::parse(&text).0.expect("YAML"),
            dir: files(),
        }
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigErrors> {
        Config::parse(text, "f", self.dir.path())
    }
}

/// Aim: the fault of any wrong value names line, column and path, what was found and what was expected, in
/// our words. Fails if a message of serde's comes through, or a bound is reported without its key.
#[test]
fn every_wrong_value_is_told_in_one_voice_at_its_place() {
    let walk = Walk::new();
    let (mut keys, mut tried, mut refused) = (BTreeSet::new(), 0, 0);
    for path in paths(&walk.tree) {
        let tree = near(&walk.tree, &path);
        let shown = tree.locate(&path).path;
        keys.insert(shown.clone());
        for value in VALUES {
            let page = Page::of(&tree, &path, Change::Value(value));
            tried += 1;
            match walk.parse(&page.text) {
                Ok(config) => {
                    assert!(
                        !WRONG_EVERYWHERE.contains(value),
                        "{shown}: {value} is taken"
                    );
                    both_readers_agree(&config, &page.text, &format!("{shown}: {value}"));
                }
                Err(faults) => {
                    refused += 1;
                    one_voice(&faults);
                    let here = faults.iter().find(|f| is_at(f, page.at, &shown));
                    match here {
                        Some(here) => assert!(says_what_was_expected(here), "{value}: {here}"),
                        None => assert!(LEFT_OUT.contains(value), "{shown}: {value}\n{faults}"),
                    }
                }
            }
        }
    }
    println!("{} keys, {tried} values, {refused} refused", keys.len());
    assert!(keys.len() > 300 && refused * 10 > tried * 9);
}

/// Whether the fault is of the value at the place, or of something in it.
fn is_at(fault: &ConfigError, at: (usize, usize), path: &str) -> bool {
    let below = fault.path.strip_prefix(path);
    match below {
        Some("") => (fault.line, fault.column) == at || fault.message.starts_with("key `"),
        Some(rest) => rest.starts_with(['.', '[']) && fault.line >= at.0,
        None => false,
    }
}

fn says_what_was_expected(fault: &ConfigError) -> bool {
    let itself = ["unknown ", "key `"];
    // The reader of a file says what is wrong with it.
    let file = fault.message.contains("cannot be read") || fault.message.contains("cannot read");
    let variable = fault.message.starts_with("environment variable `");
    let with = fault.message.contains(" requires `");
    fault.expected.as_ref().is_some_and(|e| !e.is_empty())
        || itself.iter().any(|word| fault.message.starts_with(word))
        || file
        || variable
        || with
}

/// Fails if a fault does not have our form, or has words of serde's.
fn one_voice(faults: &ConfigErrors) {
    for fault in faults.iter() {
        assert!(fault.line > 0 && fault.column > 0, "{fault}");
        assert!(!fault.message.is_empty(), "{fault}");
        let expected = fault.expected.as_deref().unwrap_or_default();
        let said = format!("{}; {expected}", fault.message);
        for word in SERDE {
            assert!(!said.contains(word), "`{word}` in {fault}");
        }
        let words = said.split(|c: char| !c.is_alphanumeric());
        for word in words {
            assert!(!TYPES.contains(&word), "`{word}` in {fault}");
        }
    }
}

/// Checks that serde_yaml and our reader read the same configuration.
fn both_readers_agree(config: &Config, text: &str, what: &str) {
    let mut tree = tree::parse(text).0.expect("YAML");
    let mut ours = decode(&mut tree, Vec::new()).config.expect(what);
    ours.dir = config.dir.clone();
    // Warnings come from our reader alone.
    ours.warnings = config.warnings.clone();
    assert_eq!(format!("{ours:?}"), format!("{config:?}"), "{what}");
}

/// Aim: repeated, misspelt and missing keys are reported by name, at their place.
#[test]
fn every_wrong_key_is_told_in_one_voice_at_its_place() {
    let walk = Walk::new();
    let (mut keys, mut required) = (0, 0);
    for path in paths(&walk.tree) {
        let Some((Step::Key(key), above)) = path.split_last() else {
            continue;
        };
        keys += 1;
        let tree = near(&walk.tree, &path);
        let shown = tree.locate(&path).path;
        let twice = Page::of(&tree, &path, Change::Twice);
        let faults = walk.parse(&twice.text).expect_err(&shown);
        one_voice(&faults);
        let told = format!("key `{key}` is there twice, first in line ");
        let told = |f: &ConfigError| f.message.starts_with(&told) && (f.line, f.column) == twice.at;
        assert!(faults.iter().any(told), "{faults}");

        let is_name = matches!(above.last(), Some(Step::Key(k)) if NAMES.contains(&k.as_str()));
        if !is_name {
            let wrong = format!("{key}_");
            let misspelt = Page::of(&tree, &path, Change::Key(&wrong));
            let faults = walk.parse(&misspelt.text).expect_err(&shown);
            one_voice(&faults);
            let fault = faults.iter().find(|f| {
                f.message.starts_with("unknown ") && f.message.ends_with(&format!(" `{wrong}`"))
            });
            let fault = fault.unwrap_or_else(|| panic!("{shown}: {faults}"));
            // The unknown word of an enum is reported at its block.
            let block = fault.message.starts_with("unknown word");
            assert_eq!(fault.line + usize::from(block), misspelt.at.0, "{fault}");
            assert_eq!(fault.suggestion.as_ref(), Some(key), "{fault}");
            assert!(fault.expected.is_some(), "{fault}");
        }

        let left = Page::of(&tree, &path, Change::Left);
        match walk.parse(&left.text) {
            Ok(config) => both_readers_agree(&config, &left.text, &shown),
            Err(faults) => {
                required += 1;
                one_voice(&faults);
            }
        }
    }
    println!("{keys} keys, {required} cannot be left out");
    assert!(keys > 250 && required > 20);
}
