//! Queries and answers as text.

use serde_json::Value;

/// Builds a query of the words that have a value: a rate, a share, a duration, a name or a number.
pub fn query<'a>(words: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let given = words.into_iter().filter_map(|(key, v)| Some((key, v?)));
    let pairs: Vec<String> = given
        .map(|(key, v)| format!("{key}={}", escape(&v)))
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("?{}", pairs.join("&")),
    }
}

/// Escapes every byte that is not legal in any URL.
fn escape(value: &str) -> String {
    value
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// Spells an answer as it came.
pub fn text(answer: &Value) -> String {
    format!("{answer:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_say_what_is_given() {
        assert_eq!(query([("rate", None), ("close", None)]), "");
        let words = [("share", Some("30%".into())), ("rate", Some("50/s".into()))];
        assert_eq!(query(words), "?share=30%25&rate=50/s");
        let odd = query([("from", Some("a&b=c d".into()))]);
        assert_eq!(odd, "?from=a%26b%3Dc%20d");
    }
}
