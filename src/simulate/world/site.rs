//! What the edges of a simulated site tell each other once a second, by the code of the running edge.
//!
//! In: flows of each edge. Out: counts and shares of limits at the others. Source: issue 16 §4, §9.

use std::time::Instant;

use super::World;
use super::event::{Event, SECOND};
use crate::control::site::counts;

impl World<'_> {
    /// Schedules the counts of the edges, spread over the second.
    pub(super) fn script_counts(&mut self) {
        let edges = self.reports.len() as u64;
        for edge in 0..edges {
            let table = &self.tables[edge as usize];
            let nodes: Vec<_> = table.nodes.values().cloned().collect();
            counts::alone(&nodes, edges as usize, Instant::now());
            let at = SECOND * edge / edges;
            self.events.add(at, Event::Count(edge as usize));
        }
    }

    /// Lets an edge read what the others have told, and tell what it has.
    pub(super) fn count(&mut self, edge: usize) {
        let now = self.instant();
        let nodes: Vec<_> = self.tables[edge].nodes.values().cloned().collect();
        let others = self.reports.iter().enumerate().filter(|(e, _)| *e != edge);
        let others = counts::elsewhere(others.map(|(_, report)| report));
        counts::apply(&nodes, &others, self.reports.len(), now);
        self.reports[edge].nodes = counts::here(&nodes);
        self.events.add(self.now + SECOND, Event::Count(edge));
    }

    /// Chooses the edge of a client's next flow: any, as where a router spreads flows by their ports.
    pub(super) fn edge(&mut self) -> usize {
        match self.tables.len() {
            1 => 0,
            edges => self.rng.usize(..edges),
        }
    }
}
