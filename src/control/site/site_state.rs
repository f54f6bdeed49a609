//! What a process knows of its site: its own name, the orders that hold, the other edges.
//!
//! Source: issue 16 §3, §4.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::edge_report::{AtNodes, EdgeReport, LIFETIME};
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
    beat: AtomicU64,
    configuration: Mutex<String>,
    others: Mutex<Others>,
}

/// The other live edges.
#[derive(Default)]
struct Others {
    reports: Vec<EdgeReport>,
    /// When they were last read.
    read: Option<Instant>,
    /// When the store last took this edge's own report.
    told: Option<Instant>,
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
            beat: AtomicU64::new(0),
            configuration: Mutex::default(),
            others: Mutex::default(),
        }
    }

    /// Reads the orders that hold and the other edges, before anything runs; waits for the store for at most
    /// a second.
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
                self.set_others(reports, true, Instant::now());
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
            beat: self.beat.fetch_add(1, Ordering::Relaxed),
            beats: true,
            nodes,
        }
    }

    /// Notes the other edges that live now. `whole`: edges that are not among `reports` are gone; otherwise they may
    /// not have told the store yet, which has lost what it knew.
    pub fn set_others(&self, mut reports: Vec<EdgeReport>, whole: bool, now: Instant) {
        let mut others = self.others.lock();
        for report in &mut reports {
            let before = others.reports.iter().find(|r| r.key() == report.key());
            report.beats = before.is_some_and(|b| b.beats || b.beat != report.beat);
        }
        if !whole {
            let before = std::mem::take(&mut others.reports).into_iter();
            let told = |r: &EdgeReport| reports.iter().any(|now| now.key() == r.key());
            let untold: Vec<_> = before.filter(|r| !told(r)).collect();
            reports.extend(untold);
        }
        (others.reports, others.read) = (reports, Some(now));
    }

    /// Notes that the store took this edge's report.
    pub fn told(&self, now: Instant) {
        self.others.lock().told = Some(now);
    }

    /// Whether the store takes reports: a full one does not, and then edges that are not in it live all the same.
    pub fn is_told(&self, now: Instant) -> bool {
        let told = self.others.lock().told;
        told.is_none_or(|at| now.saturating_duration_since(at) < LIFETIME)
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
    let is_twin = one.name == other.name && one.id != other.id && other.beats;
    if is_twin && !one.draining && !other.draining {
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
            beats: true,
            ..one.clone()
        };
        let ended = EdgeReport {
            beats: false,
            ..twin.clone()
        };
        assert!(
            warnings(&one, &ended).is_empty(),
            "the process before this one"
        );
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
