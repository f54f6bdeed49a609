//! Compares the documents with the model: the tables give each key the values that its faults expect, and the
//! default that is in force.

use std::collections::BTreeSet;
use std::path::Path;

use super::page::{Change, Page, near, paths};
use super::reference::{BLOCKS, CONFIGURATION, DEFAULTS, everything, keys_of_the_model};
use super::{Config, files};
use crate::config::error::ConfigError;
use crate::config::tree::{self, Kind, Step};

/// A key's row in `docs/configuration.md`.
struct Row {
    value: String,
    default: String,
}

/// The row of `key` in the section `block`.
fn row(block: &str, key: &str) -> Row {
    let heading = format!("\n## `{block}`\n");
    let section = CONFIGURATION.split_once(&heading).map(|(_, rest)| rest);
    let section = section.and_then(|rest| rest.split("\n## ").next());
    let start = format!("| `{key}` | ");
    let found = section.and_then(|s| s.lines().find(|line| line.starts_with(&start)));
    let found = found.unwrap_or_else(|| panic!("no row `{key}` in `{block}`"));
    let mut cells = found.trim_matches('|').split(" | ").skip(1);
    let mut cell = || cells.next().unwrap_or_default().trim().to_owned();
    Row {
        value: cell(),
        default: cell(),
    }
}

/// Returns what the fault of a wrong value at `key` says was expected.
fn expected(yaml: &str, key: &str) -> String {
    // A list is wrong for most keys, and a block for those that take a list, and text for
    // those that take either.
    for wrong in ["[[]]", "{ '?': [] }", "[]", "'?'"] {
        let text = yaml.replace("'?': 1", &format!("{key}: {wrong}"));
        let faults = Config::parse(&text, "f", Path::new("")).expect_err(key);
        let ends = |path: &str| path == key || path.ends_with(&format!(".{key}"));
        let found = |message: &str| message.starts_with("found ");
        let fault = faults.iter().find(|f| ends(&f.path) && found(&f.message));
        if let Some(expected) = fault.and_then(|f| f.expected.clone()) {
            return expected;
        }
    }
    panic!("no value is wrong for `{key}` in {yaml}");
}

/// Whether the table's cell says the same as a fault.
fn says(cell: &str, expected: &str) -> bool {
    let plain = cell.replace('`', "");
    let bare = expected.replace('`', "");
    // The kind and its bounds come first, then examples and other forms.
    let bare = bare.split([',', '(']).next().unwrap_or_default();
    let bare = bare.split(" with its unit").next().unwrap_or_default();
    let bare = bare.trim_end();
    let bare = bare
        .strip_prefix("an ")
        .or(bare.strip_prefix("a "))
        .unwrap_or(bare);
    let words = expected.split('`').skip(1).step_by(2);
    match bare {
        "true or false" => cell == "boolean",
        "list" => cell.starts_with("list of ") || cell == "networks or addresses",
        "block of names" => cell.contains(", each with "),
        _ if bare.starts_with("block ") => cell.starts_with("block `"),
        // The checks, not the decoder, say which text is legal.
        "text" => !plain.starts_with(|c: char| c.is_ascii_digit()),
        _ if expected.starts_with("one of ") || expected.starts_with('`') => {
            words.into_iter().all(|word| plain.contains(word))
        }
        _ => plain.starts_with(bare),
    }
}

/// Aim: bounds and kinds are written once, in the code. Fails if only the code or only the document changes.
#[test]
fn documented_values_are_those_of_the_faults() {
    let mut wrong = Vec::new();
    for (block, yaml) in BLOCKS {
        for key in keys_of_the_model(yaml) {
            let (cell, expected) = (row(block, &key).value, expected(yaml, &key));
            if !says(&cell, &expected) {
                wrong.push(format!(
                    "{block} {key}: document `{cell}`, fault `{expected}`"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the heading of the block of the key at `path`; `None`: a name, or the word of an enum.
fn block_of(path: &[Step]) -> Option<String> {
    let mut block = String::new();
    let keys = path.get(..path.len() - 1)?;
    for step in keys {
        block = match (block.as_str(), step) {
            ("", Step::Key(k)) => k.clone(),
            (_, Step::Index(_)) if block == "listeners" => "listeners[]".to_owned(),
            ("nodes" | "pools" | "certificates", Step::Key(_)) => format!("{block}.<name>"),
            ("listeners[].plugins", Step::Index(_)) => "plugin".to_owned(),
            ("plugin", Step::Key(k)) => k.clone(),
            ("admin", Step::Key(k)) => format!("admin.{k}"),
            (_, Step::Key(k)) if k == "health" => "health".to_owned(),
            ("pools.<name>.discover", Step::Key(k)) => format!("nodes.<name>.{k}"),
            ("headers", Step::Key(_)) => "headers.request".to_owned(),
            (_, Step::Key(k)) => format!("{block}.{k}"),
            (_, Step::Index(_)) => format!("{block}[]"),
        };
    }
    let block = if keys.is_empty() {
        "top".to_owned()
    } else {
        block
    };
    BLOCKS
        .iter()
        .any(|(known, _)| *known == block)
        .then_some(block)
}

/// Keys of plugins that know whether they were given. The plugins' own tests compare the document with the
/// value in force without them.
const OF_TABLES: [&str; 5] = ["max_age", "jitter", "expiry", "capacity", "ipv6_prefix"];

/// Keys whose default is a word, or that of the longer form for which they are short.
const SHORT: [&str; 2] = ["no_node", "max_hidden"];

/// Aim: defaults are written once, in the code. Fails if a constant changes and the reference or a document
/// does not. Without a key to which the reference gives its default, the configuration is the same.
#[test]
fn documented_defaults_are_those_in_force() {
    let dir = files();
    let text = everything().replace("PUSH_KEYSTORE_PASSWORD", "CARGO_PKG_NAME");
    let tree = tree::parse(&text).0.expect("YAML");
    let parse = |page: &Page<'_>| {
        // Warnings have lines, which differ between the two pages.
        let without = |config| Config {
            warnings: Vec::new(),
            ..config
        };
        Config::parse(&page.text, "f", dir.path()).map(without)
    };
    let mut in_force = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in paths(&tree) {
        let (Some(Step::Key(key)), Some(block)) = (path.last(), block_of(&path)) else {
            continue;
        };
        let Some(Kind::Scalar { text, .. }) = tree.find(&path).map(|n| &n.kind) else {
            continue;
        };
        let near = near(&tree, &path);
        let with = parse(&Page::of(&near, &path, Change::None)).expect("sound");
        let documented = row(&block, key).default;
        let given = format!("`{text}`");
        match parse(&Page::of(&near, &path, Change::Left)) {
            Ok(without) if format!("{with:?}") == format!("{without:?}") => {
                in_force.insert((block.clone(), key.clone()));
                if documented != given {
                    wrong.push(format!(
                        "{block} {key}: {given} is in force, not {documented}"
                    ));
                }
            }
            Ok(_) if OF_TABLES.contains(&key.as_str()) => {
                in_force.insert((block.clone(), key.clone()));
            }
            Ok(_) if documented == given => {
                wrong.push(format!(
                    "{block} {key}: something else is in force than {given}"
                ));
            }
            Ok(_) => {}
            Err(faults) => {
                let missing = format!("key `{key}` is missing");
                let required = |f: &ConfigError| f.message == missing && f.expected.is_none();
                if faults.iter().any(required) != (documented == "required") {
                    wrong.push(format!("{block} {key}: {documented}\n{faults}"));
                }
            }
        }
    }
    for (block, yaml) in BLOCKS {
        for key in keys_of_the_model(yaml) {
            let default = row(block, &key).default;
            let value = default.trim_matches('`');
            let is_value = default == format!("`{value}`") && !value.contains(['/', '`']);
            if is_value
                && !SHORT.contains(&key.as_str())
                && !in_force.contains(&((*block).to_owned(), key.clone()))
            {
                wrong.push(format!(
                    "{block} {key}: the reference does not show {default}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Fails if `docs/defaults.md` and `docs/configuration.md` differ, or a number is only in one.
#[test]
fn both_documents_have_the_same_defaults() {
    let cells = |line: &'static str| -> Vec<String> {
        let cells = line.trim_matches('|').split(" | ");
        cells
            .map(|c| c.replace('`', "").trim().to_owned())
            .collect()
    };
    let table = DEFAULTS.split("\n| what |").next().unwrap_or_default();
    let rows: Vec<Vec<String>> = table
        .lines()
        .filter(|l| l.starts_with("| `") || l.starts_with("| top"))
        .map(cells)
        .collect();
    for cells in &rows {
        assert_eq!(cells.len(), 4, "block, key, default, reason: {cells:?}");
        let there = row(&cells[0], &cells[1]).default;
        assert_eq!(there, format!("`{}`", cells[2]), "{cells:?}");
    }
    for (block, yaml) in BLOCKS {
        let plugin = pushgate_plugins::WORDS
            .iter()
            .any(|word| block.starts_with(word));
        for key in keys_of_the_model(yaml).iter().filter(|_| !plugin) {
            let default = row(block, key).default.replace('`', "");
            let number = default.starts_with(|c: char| c.is_ascii_digit());
            let there = rows.iter().any(|r| r[0] == *block && r[1] == *key);
            let short = SHORT.contains(&key.as_str());
            assert!(
                there || !number || short,
                "{block} {key} in docs/defaults.md"
            );
        }
    }
}
