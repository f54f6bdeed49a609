//! What the store holds for a client: the name of its node, and when it was assigned.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock;

/// An assignment in the store: `NODE MILLISECONDS`, the time since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// Name of the node.
    pub node: String,
    /// When it was assigned.
    pub assigned: Duration,
}

/// Returns the time since 1970.
pub(super) fn now() -> Duration {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Value {
    /// Makes the value of an assignment of this age.
    pub fn new(node: &str, age: Duration) -> Value {
        Value {
            node: node.to_owned(),
            assigned: now().saturating_sub(age),
        }
    }

    /// Reads a value; `None`: no edge has written it.
    pub fn parse(text: &str) -> Option<Value> {
        let (node, millis) = text.split_once(' ')?;
        Some(Value {
            node: node.to_owned(),
            assigned: Duration::from_millis(millis.parse().ok()?),
        })
    }

    /// Returns the age of the assignment. Zero, if the clock of the edge that made it is ahead.
    pub fn age(&self) -> Duration {
        now().saturating_sub(self.assigned)
    }

    /// Returns the second in which it was assigned, since 1970.
    pub fn second(&self) -> u64 {
        self.assigned.as_secs()
    }

    /// Returns the text in the store.
    pub fn text(&self) -> String {
        format!("{} {}", self.node, self.assigned.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_written() {
        let value = Value::new("ls1", Duration::from_secs(5));
        let read = Value::parse(&value.text()).expect("a value");
        assert_eq!(read.node, "ls1");
        assert!((4_900..6_000).contains(&(read.age().as_millis() as u64)));
        assert_eq!(Value::parse("ls1"), None);
        assert_eq!(Value::parse("ls1 soon"), None);
    }
}
