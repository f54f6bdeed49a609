//! Remembers the nodes of clients for stickiness plugins: a table of assignments, or nothing if nodes are
//! computed.
//!
//! In: the keys `mode`, `max_age`, `jitter`, `expiry`, `capacity`, `cut_at_max_age`, `table` of a block; then
//! flows, each with the address under which its client is filed. Out: faults; the client's node.
//! Source: Lightstreamer clustering §2.1.1, §4.

mod change;
mod idle;
mod key;
pub(crate) mod shared;
pub(crate) mod source;
pub(crate) mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::api::{
    Assignment, Claim, Flow, Forget, How, Mark, NodeId, Peers, PoolId, Recalled, unix_seconds,
};
use crate::bounds::Whole;
use crate::context::{Build, PluginError};
use crate::lifetime::{JITTER, Lifetime};
use crate::rendezvous::Rendezvous;
use crate::units::{MaybeSpan, Share};
use shared::Shared;
use source::Source;
use table::{Key, Limits, Table, Verdict};

/// Default expiry. A phone that slept for less finds the node of its session again. No server keeps the
/// session of a client that has been away for longer.
pub(crate) const EXPIRY: MaybeSpan = MaybeSpan(Some(Duration::from_secs(3_600)));

/// Default capacity, 130 to 200 MB when full: an order of magnitude more clients than one edge serves at once.
pub(crate) const CAPACITY: usize = 1_000_000;

/// Capacities that a block may set: up to 20 GB.
pub(crate) type Capacity = Whole<1, 100_000_000>;

/// Whether assignments are remembered or computed.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The edge remembers the node of the first flow.
    #[default]
    Table,
    /// The edge computes the node from the client's address or value; edges agree without sharing state.
    Hash,
}

/// The keys of a block that configure its memory.
#[derive(Default)]
pub(crate) struct Keys<'a> {
    /// The plugin's word.
    pub word: &'static str,
    pub mode: Mode,
    pub max_age: Option<MaybeSpan>,
    pub jitter: Option<Share>,
    pub expiry: Option<MaybeSpan>,
    pub capacity: Option<usize>,
    pub cut_at_max_age: bool,
    pub table: Option<&'a str>,
}

impl Keys<'_> {
    /// Returns what is wrong with the keys.
    pub fn faults(&self) -> Vec<PluginError> {
        let endless = self.max_age.is_some_and(|m| m.0.is_none());
        let hash = "`mode: hash` remembers nothing; this key needs `mode: table`";
        let table = self.mode == Mode::Table;
        let keys = [
            (
                !(self.cut_at_max_age && endless),
                "cut_at_max_age",
                "`cut_at_max_age` needs a finite `max_age`",
            ),
            (table || self.max_age.is_none(), "max_age", hash),
            (table || self.jitter.is_none(), "jitter", hash),
            (table || self.expiry.is_none(), "expiry", hash),
            (table || self.capacity.is_none(), "capacity", hash),
            (table || !self.cut_at_max_age, "cut_at_max_age", hash),
            (table || self.table.is_none(), "table", hash),
        ];
        let wrong = keys.into_iter().filter(|(right, ..)| !right);
        wrong
            .map(|(_, key, why)| PluginError::new([key], why))
            .collect()
    }

    /// Returns the table that the keys name, kept across reloads, and its limits. `max_age` is the plugin's
    /// default.
    pub fn table(&self, on: &Build<'_>, max_age: MaybeSpan) -> (Arc<Table>, Limits) {
        let limits = Limits {
            lifetime: Lifetime {
                max_age: self.max_age.unwrap_or(max_age).0,
                jitter: self.jitter.unwrap_or(JITTER),
            },
            expiry: self.expiry.unwrap_or(EXPIRY).0,
            capacity: self.capacity.unwrap_or(CAPACITY),
            cut_at_max_age: self.cut_at_max_age,
        };
        let table = on
            .keep
            .get_or(&self.place(on), || Table::new(limits.capacity));
        (table, limits)
    }

    /// Returns the name of the table that the keys name.
    pub fn place(&self, on: &Build<'_>) -> String {
        // The prefix keeps a listener's name apart from a table's.
        let (kind, name) = match self.table {
            Some(table) => ("table", table),
            None => ("listener", on.listener),
        };
        format!("{} {kind} {name}", self.word)
    }

    /// Makes the memory that the keys configure.
    pub fn memory(&self, on: &Build<'_>, max_age: MaybeSpan) -> Memory {
        match self.mode {
            Mode::Hash => Memory::Hash(Rendezvous::new(on.pools)),
            Mode::Table => {
                let (table, limits) = self.table(on, max_age);
                let shared = Shared {
                    place: self.place(on),
                    table: table.clone(),
                    limits,
                    proved: false,
                };
                Memory::Table {
                    word: self.word,
                    table,
                    limits,
                    shared: Arc::new(shared),
                }
            }
        }
    }
}

/// The nodes to which clients are stuck. A client is filed under its address, or under 128 bits in the form
/// of an address.
pub(crate) enum Memory {
    /// The plugin `word` remembers the node of a client's first flow.
    Table {
        word: &'static str,
        table: Arc<Table>,
        limits: Limits,
        shared: Arc<Shared>,
    },
    /// The node is computed.
    Hash(Rendezvous),
}

impl Memory {
    /// Returns the client's node.
    pub fn recall(&self, client: IpAddr, pool: PoolId, now: Instant) -> Option<Recalled> {
        match self {
            Memory::Table { table, limits, .. } => {
                let known = table.recall(&Key::new(client, pool), limits, now)?;
                Some(Recalled {
                    node: known.node,
                    age: known.age,
                    remembered: true,
                    mark: Some(known.mark(limits)),
                    max_flows: None,
                })
            }
            Memory::Hash(nodes) => nodes.best(client, pool, &|_| true).map(|node| Recalled {
                node,
                age: Duration::ZERO,
                remembered: false,
                mark: None,
                max_flows: None,
            }),
        }
    }

    /// Like [`Sticky::learn`](crate::api::Sticky::learn). `source` takes the client's room in the table.
    pub fn learn(
        &self,
        (client, source): (IpAddr, Source),
        flow: &Flow<'_>,
        pool: PoolId,
        to: &Assignment<'_>,
        usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        match self {
            Memory::Table {
                word,
                table,
                limits,
                ..
            } => {
                let verdict = Verdict {
                    node: to.node,
                    how: to.how,
                    own: matches!(to.how, How::Recalled { by, .. } if by == *word),
                };
                let at = (flow.now, unix_seconds(flow.wall));
                table.learn(
                    (Key::new(client, pool), source),
                    &verdict,
                    limits,
                    at,
                    usable,
                )
            }
            // The first choice is Down. The second choice by hash keeps all flows of the client together; the
            // balancer would scatter them.
            Memory::Hash(nodes) if matches!(to.how, How::Balanced | How::Rebalanced) => {
                nodes.best(client, pool, usable).filter(|n| *n != to.node)
            }
            Memory::Hash(_) => None,
        }
    }

    /// Returns the mark of the client's assignment.
    pub fn mark(&self, client: IpAddr, pool: PoolId, now: Instant) -> Option<Mark> {
        self.recall(client, pool, now)?.mark
    }

    /// Notes that a flow of the client has ended.
    pub fn ended(&self, client: IpAddr, pool: PoolId, now: Instant) {
        if let Memory::Table { table, limits, .. } = self {
            table.ended(&Key::new(client, pool), limits, now);
        }
    }

    /// Forgets a share of a node's assignments.
    pub fn forget(&self, what: &Forget) {
        if let Memory::Table { table, limits, .. } = self {
            table.forget(what, limits);
        }
    }

    /// Forgets that the client is stuck to `node`.
    pub fn forget_client(&self, client: IpAddr, pool: PoolId, node: NodeId) {
        if let Memory::Table { table, .. } = self {
            table.forget_client(&Key::new(client, pool), node);
        }
    }

    /// Returns the client's assignment as a site shares it. `source` takes its room in the table.
    pub fn claim(&self, client: IpAddr, source: Source, pool: PoolId) -> Option<Arc<dyn Claim>> {
        match self {
            Memory::Table { shared, .. } => Some(shared.claim(Key::new(client, pool), source)),
            Memory::Hash(_) => None,
        }
    }

    /// Shares the table with the other edges of `site`.
    pub fn join(&self, peers: &Arc<dyn Peers>) {
        if let Memory::Table { shared, .. } = self {
            shared.join(peers);
        }
    }

    /// Returns whether nodes are computed.
    pub fn computes(&self) -> bool {
        matches!(self, Memory::Hash(_))
    }
}
