//! The edges of a simulated site: what each decides with, and what it has told the others.
//!
//! In: the number of edges, whether they share a store. Out: a routing table for each. With a store the edges have one
//! memory of their clients, as if a claim took no time; without one each has its own. Source: issue 16 §9.

use pushgate_plugins::context::Keep;

use crate::config::Config;
use crate::control::plan;
use crate::control::site::edge_report::EdgeReport;
use crate::route::Table;
use crate::simulate::script::Settings;

/// The edges of a run.
pub(super) struct Edges {
    /// What each edge decides with.
    pub tables: Vec<Table>,
    /// What each edge has told the others; empty without a store.
    pub reports: Vec<EdgeReport>,
}

impl Edges {
    /// Makes the edges of `settings`, with the tables of the listener at index `listener`.
    ///
    /// Errors: as [`plan::tables`].
    pub fn new(config: &Config, settings: &Settings, listener: usize) -> Result<Edges, String> {
        let one_memory = Keep::default();
        let has_store = settings.has_store(config);
        let table = |_| {
            let own = Keep::default();
            let keep = if has_store { &one_memory } else { &own };
            Ok(plan::tables(config, keep)?.swap_remove(listener))
        };
        let tables: Vec<Table> = (0..settings.edges)
            .map(table)
            .collect::<Result<_, String>>()?;
        let counted = if has_store { settings.edges } else { 0 };
        Ok(Edges {
            tables,
            reports: vec![EdgeReport::default(); counted],
        })
    }
}
