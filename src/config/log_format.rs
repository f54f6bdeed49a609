//! The template of an access line: text with fields in braces.
//!
//! In: `{client} "{method} {path}" {status}`. Out: its parts, or a fault at the value's place.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::{echo, nearest};
use super::log_field::Field;

/// The template, with at least one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFormat {
    text: String,
    parts: Vec<FormatPart>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatPart {
    /// Text as it stands.
    Text(String),
    /// The value of a field.
    Field(Field),
}

const WORDS: &str = "text with fields in braces (`{client} {status}`)";

impl LogFormat {
    /// Returns its parts in their order.
    pub fn parts(&self) -> &[FormatPart] {
        &self.parts
    }
}

impl FromStr for LogFormat {
    /// What is wrong, and what was expected.
    type Err = (String, String);

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = rest.split_once('}').filter(|_| brace == "{") else {
                let why = format!("a single `{brace}` in `{}`", echo(text));
                return Err((why, format!("`{brace}{brace}` for a brace")));
            };
            if !plain.is_empty() {
                parts.push(FormatPart::Text(std::mem::take(&mut plain)));
            }
            parts.push(FormatPart::Field(field(name)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(FormatPart::Text(plain));
        }
        let has_field = parts.iter().any(|p| matches!(p, FormatPart::Field(_)));
        if !has_field || text.chars().any(char::is_control) {
            let why = format!("`{}`", echo(text));
            return Err((why, format!("one line of {WORDS}")));
        }
        Ok(LogFormat {
            text: text.to_owned(),
            parts,
        })
    }
}

fn field(name: &str) -> Result<Field, (String, String)> {
    let names = || Field::ALL.iter().map(|field| field.as_str());
    let found = Field::ALL.iter().find(|field| field.as_str() == name);
    found.copied().ok_or_else(|| {
        let meant = nearest(name, names()).map(|n| format!("`{{{n}}}`, or another "));
        let all: Vec<String> = names().map(|name| format!("`{name}`")).collect();
        let expected = format!("{}one of {}", meant.unwrap_or_default(), all.join(", "));
        (format!("the unknown field `{{{}}}`", echo(name)), expected)
    })
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = LogFormat;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a {WORDS}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<LogFormat, E> {
                text.parse().map_err(|(found, expected): (String, String)| {
                    E::invalid_value(Unexpected::Other(&found), &expected.as_str())
                })
            }
        }
        from.deserialize_str(Text)
    }
}

impl Serialize for LogFormat {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a brace cannot be written, or if a template that shows nothing is taken.
    #[test]
    fn templates_have_fields_and_text() {
        let parts = |text: &str| {
            let format: Option<LogFormat> = text.parse().ok();
            let parts = format.map(|format| format.parts);
            let part = |part: &FormatPart| match part {
                FormatPart::Text(text) => text.clone(),
                FormatPart::Field(field) => format!("<{}>", field.as_str()),
            };
            parts.map(|parts| parts.iter().map(part).collect::<Vec<_>>())
        };
        let expected = |parts: &[&str]| Some(parts.iter().map(|p| (*p).to_owned()).collect());
        for (text, wanted) in [
            ("{client}", expected(&["<client>"])),
            (
                "{client} -> {node}.",
                expected(&["<client>", " -> ", "<node>", "."]),
            ),
            ("{{{status}}}", expected(&["{", "<status>", "}"])),
            ("a {{b}} {flow}", expected(&["a {b} ", "<flow>"])),
            ("", None),
            ("no field", None),
            ("{{client}}", None),
            ("{client", None),
            ("client}", None),
            ("{client}}", None),
            ("{}", None),
            ("{clinet}", None),
            ("{client}\n{node}", None),
        ] {
            assert_eq!(parts(text), wanted, "{text:?}");
        }
        let (why, expected) = LogFormat::from_str("{clinet}").expect_err("unknown");
        assert_eq!(why, "the unknown field `{clinet}`");
        assert!(expected.starts_with("`{client}`, or another one of `time`, `date`"));
    }
}
