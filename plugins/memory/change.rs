//! A change of a table that the other edges of a site do not know.

use std::time::Duration;

use super::key::Key;
use super::source::Source;
use crate::api::NodeId;

/// A change that the other edges do not know.
pub struct Change {
    /// Whose assignment.
    pub key: Key,
    /// Who has its room in the table.
    pub source: Source,
    /// Its node.
    pub node: NodeId,
    /// Age of the assignment.
    pub age: Duration,
    /// Whether it counts whatever other edges remember.
    pub certain: bool,
    /// Whether it was forgotten; made otherwise.
    pub forgotten: bool,
}

/// Hears of changes. Called without a lock of the table.
pub type Listener = Box<dyn Fn(Change) + Send + Sync>;
