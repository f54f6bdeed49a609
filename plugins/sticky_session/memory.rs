//! The rule and the table of one `sticky_session` block.

use std::sync::Arc;

use super::rule::Rule;
use crate::memory::shared::Shared;
use crate::memory::table::{Limits, Table};

/// The plugin's word.
pub(super) const NAME: &str = "sticky_session";

/// The state of one block; shared with the flows that it watches.
pub struct Memory {
    pub rule: Rule,
    pub table: Arc<Table>,
    pub limits: Limits,
    pub shared: Arc<Shared>,
}
