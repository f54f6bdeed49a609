//! Writes a tree as YAML, for the reader that decides what runs.
//!
//! In: a tree into which variables and other files were put. Out: text with the same values, one on each line.

use std::fmt::Write;

use super::{Kind, Node, Scalar};

impl Node {
    /// Writes this value as YAML that every reader reads in the same way: text in quotes, each value on its line.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text.push('\n');
        text
    }

    fn write(&self, out: &mut String) {
        match &self.kind {
            Kind::Scalar { text, .. } => match self.scalar() {
                Some(Scalar::Text(_)) | None => quote(text, out),
                Some(Scalar::Nothing) => out.push('~'),
                Some(_) => out.push_str(text),
            },
            Kind::List(items) => {
                out.push_str("[\n");
                for item in items {
                    item.node.write(out);
                    out.push_str(",\n");
                }
                out.push(']');
            }
            Kind::Map(entries) => {
                out.push_str("{\n");
                for entry in entries {
                    quote(&entry.key, out);
                    out.push_str(": ");
                    entry.node.write(out);
                    out.push_str(",\n");
                }
                out.push('}');
            }
        }
    }
}

/// Writes `text` in quotes; what is not printable ASCII as its number (YAML 1.2.2 §5.7).
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            // Writing into a string cannot fail.
            _ => drop(write!(out, "\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use crate::config::tree::{Kind, Node, Position, parse};

    /// Aim: what is written means the same to both readers. Fails if text is written without quotes, or a character
    /// as it is that YAML forbids.
    #[test]
    fn what_is_written_is_read_as_it_was() {
        let written = "{a: 1, b: '1', c: ~, d: [x, 'y: z', \"\\\"\"], e: {}, f: 0x10, g: True}";
        let mut tree = parse(written).0.expect("YAML");
        let same = |tree: &Node| {
            let text = tree.to_yaml();
            serde_yaml::from_str::<serde_yaml::Value>(&text).expect("YAML")
        };
        let first: serde_yaml::Value = serde_yaml::from_str(written).expect("YAML");
        assert_eq!(same(&tree), first);
        assert_eq!(
            parse(&tree.to_yaml()).0.expect("YAML").to_yaml(),
            tree.to_yaml()
        );
        let odd = "a\u{7f}\u{85}\n\t\u{feff}ä\u{1F600}\\\"#: ";
        tree.kind = Kind::Scalar {
            text: odd.to_owned(),
            plain: true,
        };
        tree.at = Position::default();
        assert_eq!(same(&tree), serde_yaml::Value::String(odd.to_owned()));
    }
}
