//! One edge's part of a rebalance: its flows, and those that the rule reaches next.
//!
//! In: flows of an edge. Out: a value of the store that the leader reads, and back. Source: issue 16 §5.

use std::collections::BTreeMap;
use std::fmt::Write;

use pushgate_plugins::api::{Forgotten, Mark};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an edge has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Part {
    /// The run.
    pub run: String,
    /// The edge, by name and process.
    pub edge: String,
    /// The last word of the leader that this edge has obeyed: the flows that it closed for it are not listed.
    pub seq: u64,
    /// Flows that were assigned since the run began.
    pub arrived: usize,
    /// By the name of the node.
    pub nodes: BTreeMap<String, AtNode>,
}

/// What an edge has at one node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct AtNode {
    /// Live flows, without those that are being closed.
    pub flows: usize,
    /// The next flows that may move, in the order in which the rule reaches them; `None`: the leader had not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// Whether there are more than are listed.
    #[serde(default)]
    pub more: bool,
}

/// Marks of flows; written as `1f2e 33a0n`, where `n` marks an assignment that a table keeps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Next(pub Vec<Mark>);

impl Serialize for Next {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len() * 18);
        for mark in &self.0 {
            let gap = if text.is_empty() { "" } else { " " };
            let named = match mark.by {
                Forgotten::Name => "n",
                Forgotten::Rule => "",
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "{gap}{:x}{named}", mark.id);
        }
        s.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Next {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let one = |word: &str| {
            let (digits, by) = match word.strip_suffix('n') {
                Some(digits) => (digits, Forgotten::Name),
                None => (word, Forgotten::Rule),
            };
            let id = u64::from_str_radix(digits, 16).ok()?;
            Some(Mark {
                id,
                // Only flows of old assignments are listed.
                learned: 0,
                by,
                cut_after: None,
            })
        };
        Ok(Next(text.split(' ').filter_map(one).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_values() {
        let mark = |id, by| Mark {
            id,
            learned: 0,
            by,
            cut_after: None,
        };
        let next = vec![mark(0x1f, Forgotten::Rule), mark(u64::MAX, Forgotten::Name)];
        let at = |next, more| AtNode {
            flows: 7,
            next,
            more,
        };
        let nodes = [
            ("a".into(), at(Some(Next(next)), true)),
            ("b".into(), at(Some(Next::default()), false)),
            ("c".into(), at(None, false)),
        ];
        let part = Part {
            run: "r".into(),
            edge: "e:1".into(),
            seq: 3,
            arrived: 2,
            nodes: nodes.into(),
        };
        let text = serde_json::to_string(&part).expect("JSON");
        assert!(text.contains(r#""next":"1f ffffffffffffffffn""#), "{text}");
        let read: Part = serde_json::from_str(&text).expect("a part");
        assert_eq!(read, part);
    }
}
