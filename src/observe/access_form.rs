//! The forms of an access line: JSON, a text of the operator's own, or an entry of the journal.
//!
//! In: the fields of a line. Out: its bytes. What a client sent is escaped in each form, so that it cannot end a line
//! or begin another field.

use serde_json::Value;

use super::journald::Entry;
use crate::config::{Field, FormatPart, LogFormat};

/// Level of an access line in the journal: `info`.
const LEVEL: u8 = 6;
/// The text of an entry of the journal, where the file names no other.
const MESSAGE: &str = "{client} \"{method} {host}{path}\" {status} {node} {ended}";

/// How lines are written.
pub enum Form {
    /// A JSON object of all fields.
    Whole,
    /// A JSON object of these fields.
    Fields(Vec<Field>),
    /// A text.
    Text(LogFormat),
    /// An entry of the journal: a text, and these fields beside it.
    Journal(LogFormat, Vec<Field>),
}

impl Form {
    /// The form that the file asks for. `fields`: none means all.
    pub fn new(fields: &[Field], format: Option<&LogFormat>, is_journal: bool) -> Form {
        let format = format.cloned();
        if is_journal {
            let message = format.unwrap_or_else(|| MESSAGE.parse().expect("a legal template"));
            let all = if fields.is_empty() {
                Field::ALL
            } else {
                fields
            };
            return Form::Journal(message, all.to_vec());
        }
        match format {
            Some(format) => Form::Text(format),
            None if fields.is_empty() => Form::Whole,
            None => Form::Fields(fields.to_vec()),
        }
    }

    /// Writes a line, without its end. Errors: none in practice, because `all` is JSON already.
    pub fn write(&self, all: &Value) -> serde_json::Result<Vec<u8>> {
        match self {
            Form::Whole => serde_json::to_vec(all),
            Form::Fields(fields) => chosen(all, fields),
            Form::Text(format) => Ok(text(all, format).into_bytes()),
            Form::Journal(format, fields) => Ok(entry(all, format, fields)),
        }
    }
}

/// Writes only some fields, in their order. A field that the line does not have is left out.
fn chosen(all: &Value, fields: &[Field]) -> serde_json::Result<Vec<u8>> {
    let mut line = Vec::from(*b"{");
    for field in fields {
        let Some(value) = all.get(field.as_str()) else {
            continue;
        };
        if line.len() > 1 {
            line.push(b',');
        }
        serde_json::to_writer(&mut line, field.as_str())?;
        line.push(b':');
        serde_json::to_writer(&mut line, value)?;
    }
    line.push(b'}');
    Ok(line)
}

/// Fills a template in. A field that the line does not have is `-`.
fn text(all: &Value, format: &LogFormat) -> String {
    let part = |part: &FormatPart| match part {
        FormatPart::Text(text) => text.clone(),
        FormatPart::Field(field) => match all.get(field.as_str()) {
            None => "-".to_owned(),
            // As JSON escapes it, without its quotes.
            Some(Value::String(text)) => {
                let quoted = Value::from(text.as_str()).to_string();
                let inner = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
                inner.unwrap_or_default().to_owned()
            }
            Some(other) => other.to_string(),
        },
    };
    format.parts().iter().map(part).collect()
}

/// Makes an entry, whose fields are `PUSHGATE_CLIENT` and so on.
fn entry(all: &Value, format: &LogFormat, fields: &[Field]) -> Vec<u8> {
    let mut entry = Entry::new(LEVEL, &text(all, format));
    for field in fields {
        let value = match all.get(field.as_str()) {
            None => continue,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let name = format!("PUSHGATE_{}", field.as_str().to_ascii_uppercase());
        entry.add(&name, &value);
    }
    entry.into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all() -> Value {
        json!({ "client": "192.0.2.1:5", "user_agent": "\u{1b}[31m\n\"x\" {node}", "status": 200, "request_id": "a\"b", "flow": 7 })
    }

    /// Aim: chosen fields come in the file's order, escaped; a missing one is left out. Fails if a client's user agent
    /// can end a line or colour a terminal.
    #[test]
    fn fields_come_in_their_order() {
        let fields = [Field::UserAgent, Field::Sni, Field::RequestId, Field::Flow];
        let form = Form::new(&fields, None, false);
        let line = String::from_utf8(form.write(&all()).expect("JSON")).expect("text");
        let expected = "{\"user_agent\":\"\\u001b[31m\\n\\\"x\\\" {node}\",\"request_id\":\"a\\\"b\",\"flow\":7}";
        assert_eq!(line, expected);
    }

    /// Aim: a text has the values in their places, `-` for none, and what a client sent cannot end the line. Fails if a
    /// client can forge a line, or if its text is taken for a template.
    #[test]
    fn a_text_has_the_values_in_their_places() {
        let format = "{client} [{sni}] {status} {{\"{user_agent}\"}}".parse();
        let form = Form::new(&[], Some(&format.expect("legal")), false);
        let line = String::from_utf8(form.write(&all()).expect("text")).expect("text");
        let expected = "192.0.2.1:5 [-] 200 {\"\\u001b[31m\\n\\\"x\\\" {node}\"}";
        assert_eq!(line, expected);
    }

    /// Fails if a value of several lines is cut, or can begin another field.
    #[test]
    fn an_entry_has_a_text_and_fields() {
        let fields = [Field::UserAgent, Field::Sni, Field::Status];
        let entry = Form::new(&fields, None, true).write(&all());
        let entry = entry.expect("an entry");
        let shown = String::from_utf8_lossy(&entry);
        let begin = "PRIORITY=6\nSYSLOG_IDENTIFIER=pushgate\nMESSAGE=192.0.2.1:5 \"- --\" 200 - -\n\
                     PUSHGATE_USER_AGENT\n";
        assert!(shown.starts_with(begin), "{shown}");
        assert!(shown.ends_with("PUSHGATE_STATUS=200\n"), "{shown}");
        assert_eq!(shown.matches("PUSHGATE_SNI").count(), 0, "{shown}");
    }
}
