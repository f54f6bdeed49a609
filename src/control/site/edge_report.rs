//! What an edge says of itself once a second, for the other edges of its site and for the operator.
//!
//! In: the edge's name, version, configuration, flows. Out: a value of the store, and back. Source: issue 16 §4.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Pause between two reports.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long a report lives. The others read once a second, so the flows of an edge that died count for 5 s at most.
pub const LIFETIME: Duration = Duration::from_secs(4);
/// Longest report that is read, in bytes; 10,000 nodes need some 300 KB.
pub const MAX_REPORT: usize = 4 << 20;

/// Flows of one edge at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtNode {
    /// Live flows.
    pub flows: usize,
    /// Most flows it may have by `max_flows`, which the others leave to it; 0 without a limit.
    pub most: usize,
    /// The same by `max_flows_hard`.
    pub most_hard: usize,
}

/// The flows of an edge by the name of the node. Written as `ls1=120 ls2=80/100/0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtNodes(pub BTreeMap<String, AtNode>);

/// What an edge says of itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct EdgeReport {
    /// Its name.
    pub name: String,
    /// Tells two processes of one name apart.
    pub id: String,
    /// Addresses of its listeners.
    pub addresses: Vec<String>,
    /// When it started, in seconds since 1970.
    pub since: u64,
    /// Version of the program.
    pub version: String,
    /// Hash of what edges should have in common of their configuration.
    pub configuration: String,
    /// Whether it takes no new clients, because it stops or a successor has taken over.
    #[serde(default)]
    pub draining: bool,
    /// Grows with each report: one that stays the same is of a process that has ended.
    #[serde(default)]
    pub beat: u64,
    /// Whether the beat was seen to grow.
    #[serde(skip)]
    pub beats: bool,
    /// Its flows at each node.
    pub nodes: AtNodes,
}

impl EdgeReport {
    /// Reads a report; `None`: another version wrote it in a form that this one does not know.
    pub fn read(bytes: &[u8]) -> Option<EdgeReport> {
        let fits = bytes.len() <= MAX_REPORT;
        fits.then(|| serde_json::from_slice(bytes).ok()).flatten()
    }

    /// Returns the value for the store.
    pub fn written(&self) -> String {
        serde_json::to_string(self).expect("a report is strings and numbers")
    }

    /// Name and process: the part of the store's key that tells edges apart.
    pub fn key(&self) -> String {
        format!("{}:{}", self.name, self.id)
    }

    /// Returns all live flows of the edge.
    pub fn flows(&self) -> usize {
        self.nodes.0.values().map(|at| at.flows).sum()
    }
}

impl Serialize for AtNodes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let mut text = String::with_capacity(self.0.len() * 16);
        for (name, at) in &self.0 {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{gap}{name}={}", at.flows);
            if (at.most, at.most_hard) != (0, 0) {
                let _ = write!(text, "/{}/{}", at.most, at.most_hard);
            }
        }
        s.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for AtNodes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let one = |word: &str| {
            let (name, numbers) = word.rsplit_once('=')?;
            let mut numbers = numbers.split('/').map(|n| n.parse().ok());
            let at = AtNode {
                flows: numbers.next()??,
                most: numbers.next().flatten().unwrap_or(0),
                most_hard: numbers.next().flatten().unwrap_or(0),
            };
            Some((name.to_owned(), at))
        };
        // A word that another version wrote is left out.
        Ok(AtNodes(text.split(' ').filter_map(one).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_compact_text() {
        let at = |flows, most, most_hard| AtNode {
            flows,
            most,
            most_hard,
        };
        let nodes = [("ls1", at(120, 0, 0)), ("ls2", at(80, 100, 0))];
        let report = EdgeReport {
            name: "a".into(),
            id: "1f".into(),
            addresses: vec!["200.0.0.10:443".into()],
            since: 7,
            version: "1.0".into(),
            configuration: "abc".into(),
            draining: false,
            beat: 1,
            beats: false,
            nodes: AtNodes(nodes.map(|(n, at)| (n.to_owned(), at)).into()),
        };
        let text = report.written();
        assert!(text.contains(r#""nodes":"ls1=120 ls2=80/100/0""#), "{text}");
        assert_eq!(EdgeReport::read(text.as_bytes()), Some(report.clone()));
        assert_eq!((report.flows(), report.key().as_str()), (200, "a:1f"));
        let odd = text.replace("ls1=120", "ls1=x more =");
        let read = EdgeReport::read(odd.as_bytes()).expect("a report");
        assert_eq!(read.flows(), 80, "what cannot be read is left out");
        assert_eq!(EdgeReport::read(b"{}"), None);
    }
}
