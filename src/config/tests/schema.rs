//! Makes the JSON Schema of the configuration, for editors, and holds the file in `conf/` to it.
//!
//! In: the keys that the reader knows, and the tables of `docs/configuration.md`, which another test compares with
//! the reader. Out: `conf/pushgate.schema.json`. The schema knows less than `check`: it sees one value at a time.
//! To write it anew: `PUSHGATE_WRITE=1 cargo test --lib schema`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::reference::{BLOCKS, CONFIGURATION, everything, keys_of_the_model};

/// Where the schema is.
const FILE: &str = "conf/pushgate.schema.json";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Cells of the row of `key`: value, default, meaning.
fn row(block: &str, key: &str) -> [String; 3] {
    let section = CONFIGURATION.split(&format!("\n## `{block}`\n")).nth(1);
    let section = section.and_then(|rest| rest.split("\n## ").next());
    let start = format!("| `{key}` | ");
    let line = section.and_then(|s| s.lines().find(|line| line.starts_with(&start)));
    let line = line.unwrap_or_else(|| panic!("no row `{key}` in `{block}`"));
    let line = line.replace("\\|", "¦");
    let cells: Vec<String> = line
        .trim_matches('|')
        .split(" | ")
        .map(|cell| cell.trim().replace('¦', "|"))
        .collect();
    [&cells[1], &cells[2], &cells[4]].map(|cell| cell.trim_end_matches(" |").to_owned())
}

fn text() -> Value {
    // A reader of YAML takes `1` for a number, but a node may be called so.
    json!({ "type": ["string", "number", "boolean"] })
}

fn variable() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{" })
}

fn any_of(all: impl IntoIterator<Item = Value>) -> Value {
    json!({ "anyOf": all.into_iter().collect::<Vec<_>>() })
}

fn block(name: &str) -> Value {
    // Both have the same keys.
    let name = name.replace("headers.response", "headers.request");
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// Returns the words in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Returns the schema of a value that the table describes as `cell`.
fn of_value(cell: &str) -> Value {
    let words = quoted(cell);
    let number = |at: &str| {
        let rest = cell.split(at).nth(1)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u64>().ok()
    };
    if cell == "boolean" {
        return any_of([json!({ "type": "boolean" }), variable()]);
    }
    if cell.starts_with("whole number") {
        let mut whole = Map::from_iter([("type".to_owned(), json!("integer"))]);
        whole.extend(number("from ").map(|n| ("minimum".to_owned(), n.into())));
        whole.extend(number(" to ").map(|n| ("maximum".to_owned(), n.into())));
        return any_of([whole.into(), variable()]);
    }
    if cell == "list of blocks, one plugin each" {
        return json!({ "type": "array", "items": block("listeners[].plugins") });
    }
    if let Some(rest) = cell.strip_prefix("list of ") {
        return match words.first() {
            Some(word) if rest.starts_with("blocks") => {
                json!({ "type": "array", "items": block(word) })
            }
            _ if rest.contains("places") || rest.contains("{ ") => json!({ "type": "array" }),
            _ => json!({ "type": "array", "items": text() }),
        };
    }
    if let (true, Some(word)) = (cell.contains("each with a block"), words.last()) {
        return json!({ "type": "object", "additionalProperties": block(word) });
    }
    if cell.contains(", each with ") {
        return json!({ "type": "object", "additionalProperties": text() });
    }
    if let (true, Some(word)) = (cell.starts_with("block "), words.first()) {
        return block(word);
    }
    if cell.ends_with("block `listeners[].max_hidden`") {
        return any_of([text(), block("listeners[].max_hidden")]);
    }
    if cell.ends_with("list of both")
        || cell.ends_with("list of them")
        || cell.starts_with("networks")
    {
        return any_of([text(), json!({ "type": "array", "items": text() })]);
    }
    if cell.starts_with('`') && !cell.contains(" to ") && !cell.contains("{ refuse") {
        return of_words(&words);
    }
    match cell.contains('{') {
        true => json!({}),
        false => text(),
    }
}

/// Returns the schema of a choice: words, and words with a value.
fn of_words(words: &[&str]) -> Value {
    let (valued, plain): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with("{ "));
    let spelled = plain.iter().flat_map(|word| {
        let number: Option<serde_json::Number> = word.parse().ok();
        [Some(json!(word)), number.map(Value::from)]
    });
    let spelled: Vec<Value> = spelled.flatten().collect();
    let mut forms = vec![json!({ "enum": spelled }), variable()];
    for word in valued {
        let key = word.trim_matches(['{', '}', ' ']).split(':').next();
        let key = key.unwrap_or_default();
        forms.push(json!({
            "type": "object", "properties": { key: text() }, "required": [key],
            "additionalProperties": false,
        }));
    }
    any_of(forms)
}

/// Makes the schema of one block.
fn of_block(name: &str, yaml: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for key in keys_of_the_model(yaml) {
        let [value, default, meaning] = row(name, &key);
        let mut schema = of_value(&value);
        let said = match default.as_str() {
            "–" | "required" => format!("{meaning} Value: {value}."),
            _ => format!("{meaning} Value: {value}. Default: {default}."),
        };
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), said.into());
        }
        // `address` and the like may be in another file only at the top.
        if default == "required" && name != "top" {
            required.push(key.clone());
        }
        properties.insert(key, schema);
    }
    let mut schema = json!({
        "type": "object", "properties": properties, "additionalProperties": false,
    });
    if name == "listeners[].plugins" {
        schema["minProperties"] = 1.into();
        schema["maxProperties"] = 1.into();
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn schema() -> Value {
    let blocks: BTreeMap<&str, Value> = BLOCKS.iter().map(|(n, y)| (*n, of_block(n, y))).collect();
    let mut schema = blocks["top"].clone();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "Configuration of Pushgate".into();
    let defs = blocks.into_iter().filter(|(name, _)| *name != "top");
    schema["$defs"] = defs.map(|(name, block)| (name.to_owned(), block)).collect();
    schema
}

/// Returns what of `value` the schema refuses; knows the words that [`schema`] uses.
fn refused(all: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_of = |word: &Value| match word.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        other => panic!("type {other:?}"),
    };
    for (word, of) in schema.as_object().expect("a schema") {
        let holds = match word.as_str() {
            "$ref" => {
                let name = of.as_str().and_then(|of| of.strip_prefix("#/$defs/"));
                let named = &all["$defs"][name.expect("a name")];
                wrong.extend(refused(all, named, value, at));
                true
            }
            "type" => of
                .as_array()
                .map_or_else(|| is_of(of), |of| of.iter().any(is_of)),
            "anyOf" => {
                let forms = of.as_array().expect("forms");
                forms
                    .iter()
                    .any(|form| refused(all, form, value, at).is_empty())
            }
            "enum" => of.as_array().is_some_and(|of| of.contains(value)),
            "pattern" => value.as_str().is_none_or(|text| text.contains("${")),
            "minimum" => value.as_u64() >= of.as_u64(),
            "maximum" => value.as_u64() <= of.as_u64(),
            "minProperties" => value.as_object().is_none_or(|map| !map.is_empty()),
            "maxProperties" => value.as_object().is_none_or(|map| map.len() < 2),
            "required" => of.as_array().is_some_and(|keys| {
                keys.iter()
                    .all(|key| value.get(key.as_str().expect("a key")).is_some())
            }),
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    wrong.extend(refused(all, of, item, &format!("{at}[{i}]")));
                }
                true
            }
            "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    let own = schema.get("properties").and_then(|p| p.get(key));
                    let at = format!("{at}.{key}");
                    match (own, of) {
                        (Some(own), _) => wrong.extend(refused(all, own, inner, &at)),
                        (None, Value::Bool(false)) => wrong.push(format!("{at} is unknown")),
                        (None, of) => wrong.extend(refused(all, of, inner, &at)),
                    }
                }
                true
            }
            "properties" | "description" | "title" | "$schema" | "$defs" => true,
            other => panic!("word {other}"),
        };
        if !holds {
            wrong.push(format!("{at}: {word} {of} refuses {value}"));
        }
    }
    wrong
}

fn yaml(text: &str, what: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{what}: {e}"))
}

/// Aim: the shipped schema has the keys that the reader knows. Fails if a key is added, or a table changes, and the
/// file does not.
#[test]
fn the_shipped_schema_is_that_of_the_reader() {
    let path = root().join(FILE);
    let made = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
    if std::env::var_os("PUSHGATE_WRITE").is_some() {
        std::fs::write(&path, &made).expect("write");
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == made,
        "{FILE} is old: PUSHGATE_WRITE=1 cargo test --lib schema"
    );
}

/// Aim: editors find no fault in a legal file, and find misspelt keys and wrong kinds. Fails if the schema is narrower
/// than the reader, for the reference with everything put in and every file of `conf/`.
#[test]
fn every_shipped_configuration_fits_the_schema() {
    let schema = schema();
    let mut tried = 0;
    let fits = |text: &str, what: &str| {
        let wrong = refused(&schema, &schema, &yaml(text, what), "");
        assert!(wrong.is_empty(), "{what}: {}", wrong.join("\n"));
    };
    fits(&everything(), "everything");
    for entry in std::fs::read_dir(root().join("conf")).expect("conf") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let text = std::fs::read_to_string(&path).expect("text");
            tried += 1;
            fits(&text, &path.display().to_string());
        }
    }
    assert!(tried > 20, "{tried} files");
    fits("threads: ${THREADS:-4}\ninclude: [conf.d]\n", "a variable");
    for (text, expected) in [
        ("thread: 4", ".thread is unknown"),
        ("threads: 0", ".threads: anyOf"),
        ("threads: four", ".threads: anyOf"),
        (
            "nodes: { n: { adress: 10.0.0.1:80 } }",
            ".nodes.n.adress is unknown",
        ),
        ("nodes: { n: {} }", ".nodes.n: required"),
        (
            "pools: { p: { balance: fastest } }",
            ".pools.p.balance: anyOf",
        ),
        ("listeners: { name: a }", ".listeners: type"),
        ("log: { query: yes please }", ".log.query: anyOf"),
        (
            "listeners: [{ name: a, bind: [a], mode: http, plugins: [{ sticky: {} }] }]",
            "sticky is unknown",
        ),
        (
            "listeners: [{ name: a, bind: [a], mode: http, plugins: [{ forwarded: {}, headers: {} }] }]",
            "maxProperties",
        ),
    ] {
        let wrong = refused(&schema, &schema, &yaml(text, text), "").join("\n");
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
}
