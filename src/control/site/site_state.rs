//! What a process knows of its site: its own name, the orders that hold, the other edges.
//!
//! Source: issue 16 §3, §4.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::edge_report::{AtNodes, EdgeReport};
use super::order::{Order, Subject};
use super::order_book::{OrderBook, oldest_rules};
use super::store::Store;
use crate::clock;
use crate::site::{self, StoreError};

/// What a process knows of its site.
pub struct Site {
    /// Name of this edge.
    pub name: String,
    /// Tells processes of one name apart.
    pub id: String,
    /// The orders that hold here.
    pub book: Mutex<OrderBook>,
    /// The store; `None`: none is configured, and this edge is alone.
    pub store: Option<Store>,
    since: u64,
    configuration: Mutex<String>,
    others: Mutex<Others>,
}

/// The other live edges.
#[derive(Default)]
struct Others {
    reports: Vec<EdgeReport>,
    /// When they were last read.
    read: Option<Instant>,
}

impl Site {
    /// The site of an edge called `name`, of which nothing is known yet. Must be made before `store` connects.
    pub fn new(name: Option<String>, book: OrderBook, store: Option<Arc<site::Store>>) -> Self {
        let name = name.unwrap_or_else(host_name);
        let id = format!("{:08x}", fastrand::u32(..));
        let since = clock::wall().duration_since(std::time::UNIX_EPOCH);
        Site {
            store: store.map(|store| Store::new(store, format!("{name}:{id}"))),
            name,
            id,
            book: Mutex::new(book),
            since: since.unwrap_or(Duration::ZERO).as_secs(),
            configuration: Mutex::default(),
            others: Mutex::default(),
        }
    }

    /// Reads the orders that hold and the other edges, before anything runs; waits for the store for at most
    /// [`START_WAIT`].
    pub async fn begin(&self) {
        let Some(store) = &self.store else { return };
        let read = async {
            store.connected().await;
            let orders = orders_at_start(store).await?;
            let reports = store.reports().await?;
            Ok::<_, StoreError>((orders, reports))
        };
        match tokio::time::timeout(START_WAIT, read).await {
            Ok(Ok((orders, reports))) => {
                let mut book = self.book.lock();
                for (subject, order) in orders {
                    // A predecessor's order that the store lacks stays, and is sent when the edge runs.
                    let _ = book.hear(subject, order);
                }
                drop(book);
                self.set_others(reports, Instant::now());
            }
            Ok(Err(e)) => log::warn!(
                "the store does not answer ({e}): this edge starts without the orders of its site"
            ),
            Err(_) => log::warn!(
                "the store does not answer within {} s: this edge starts without the orders of its site",
                START_WAIT.as_secs()
            ),
        }
    }

    /// Locks the orders that hold for new nodes and tables; `None`: no store is configured, and a node that a reload
    /// replaces starts without orders.
    pub fn orders_of_site(&self) -> Option<MutexGuard<'_, OrderBook>> {
        self.store.as_ref().map(|_| self.book.lock())
    }

    /// Name and process of this edge: the part of the store's keys that tells edges apart.
    pub fn key(&self) -> String {
        format!("{}:{}", self.name, self.id)
    }

    /// Sets the hash of the configuration in force.
    pub fn configured(&self, hash: String) {
        *self.configuration.lock() = hash;
    }

    /// Returns what this edge says of itself.
    pub fn report(&self, addresses: Vec<String>, draining: bool, nodes: AtNodes) -> EdgeReport {
        EdgeReport {
            name: self.name.clone(),
            id: self.id.clone(),
            addresses,
            since: self.since,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            configuration: self.configuration.lock().clone(),
            draining,
            nodes,
        }
    }

    /// Notes the other edges that live now.
    pub fn set_others(&self, reports: Vec<EdgeReport>, now: Instant) {
        *self.others.lock() = Others {
            reports,
            read: Some(now),
        };
    }

    /// Returns the other edges that were last known to live, and how long ago that was.
    pub fn others(&self, now: Instant) -> (Vec<EdgeReport>, Option<Duration>) {
        let others = self.others.lock();
        let ago = others.read.map(|read| now.saturating_duration_since(read));
        (others.reports.clone(), ago)
    }

    /// Counts the edges that take clients, this one included, by the last word of each.
    pub fn edges(&self) -> usize {
        let others = self.others.lock();
        1 + others.reports.iter().filter(|r| !r.draining).count()
    }

    /// Returns the orders that hold, as the API shows them.
    pub fn orders(&self) -> Value {
        let book = self.book.lock();
        let of_nodes = book.all().filter(|(subject, _)| !subject.is_rule());
        let shown = of_nodes.map(|(subject, order)| {
            let here = book.shown(subject).is_some_and(|(_, here)| here);
            json!({
                "subject": subject.to_string(), "order": order.what.to_string(), "edge": order.by,
                "at": order.at / 1000, "here": here,
            })
        });
        shown.collect()
    }
}

/// Longest wait for the store before the listeners of an edge that starts accept.
const START_WAIT: Duration = Duration::from_secs(1);

/// Reads the orders that hold, for an edge that starts; their subjects need not exist yet.
async fn orders_at_start(store: &Store) -> Result<BTreeMap<Subject, Order>, StoreError> {
    let mut stored = store.orders().await?;
    oldest_rules(&mut stored);
    Ok(stored)
}

/// Returns the name of this machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.trim().chars().filter(legal).collect();
    match name.is_empty() {
        true => "edge".to_owned(),
        false => name,
    }
}

/// What differs between edges, in words for the operator. `one` is this edge.
pub fn warnings(one: &EdgeReport, other: &EdgeReport) -> Vec<&'static str> {
    let mut found = Vec::new();
    if one.name == other.name && one.id != other.id && !one.draining && !other.draining {
        found.push("same name as this edge: set `state.name`");
    }
    if one.configuration != other.configuration {
        found.push("configuration differs");
    }
    if one.version != other.version {
        found.push("version differs");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a successor that takes over is taken for a second edge of one name, or if a difference is not told.
    #[test]
    fn differences_are_told() {
        let one = EdgeReport {
            name: "a".into(),
            id: "1".into(),
            ..EdgeReport::default()
        };
        let twin = EdgeReport {
            id: "2".into(),
            ..one.clone()
        };
        assert_eq!(
            warnings(&one, &twin),
            ["same name as this edge: set `state.name`"]
        );
        let leaving = EdgeReport {
            draining: true,
            ..twin.clone()
        };
        assert!(warnings(&one, &leaving).is_empty());
        let other = EdgeReport {
            name: "b".into(),
            version: "2".into(),
            configuration: "x".into(),
            ..twin
        };
        assert_eq!(warnings(&one, &other).len(), 2);
    }
}
