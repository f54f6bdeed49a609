//! A table of assignments as the edges of a site share it.
//!
//! In: a table and the limits of the plugin that uses it. Out: claims, and what changes in the table is told to the
//! [`Peers`].

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::source::Source;
use super::table::{Key, Limits, Table};
use crate::api::{Adopted, Claim, NodeId, Peers, PoolId, SharedTable, Used};

/// Expiry of an assignment that has none, where a store needs one.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Part of `expiry` after which an assignment in use is told again: a lost message is repeated in time.
const RENEWALS: u32 = 3;

/// A table that a site may share.
pub(crate) struct Shared {
    /// Names the table on every edge.
    pub place: String,
    /// The table.
    pub table: Arc<Table>,
    /// Limits of the plugin.
    pub limits: Limits,
    /// Whether its ids are chosen by nodes.
    pub proved: bool,
}

impl Shared {
    /// Returns the claim for what is filed under `key`. `source` takes its room in the table.
    pub fn claim(self: &Arc<Self>, key: Key, source: Source) -> Arc<dyn Claim> {
        Arc::new(Filed {
            of: self.clone(),
            key,
            source,
        })
    }

    /// Shares the table with the other edges of `site` from now on.
    pub fn join(self: &Arc<Self>, peers: &Arc<dyn Peers>) {
        // The table must not keep itself alive.
        let (of, to) = (Arc::downgrade(self), peers.clone());
        self.table.tell(Box::new(move |change| {
            let Some(of) = of.upgrade() else { return };
            let claim = of.claim(change.key, change.source);
            match change.forgotten {
                true => to.forgot(claim, change.node),
                false => to.assigned(claim, change.node, change.age, change.certain),
            }
        }));
        peers.join(&self.place, Arc::new(self.clone()));
    }
}

impl SharedTable for Arc<Shared> {
    fn used(&self, since: Instant) -> Vec<Used> {
        let used = self.table.used(since, &self.limits);
        let claim = |(key, source, node, age)| (self.claim(key, source), node, age);
        used.into_iter().map(claim).collect()
    }

    fn named(&self, name: &[u8]) -> Option<Arc<dyn Claim>> {
        let rest = name
            .strip_prefix(self.place.as_bytes())?
            .strip_prefix(&[0])?;
        let (pool, id) = rest.split_first_chunk::<8>()?;
        let id: [u8; 16] = id.try_into().ok()?;
        let key = Key::of_hash(id, PoolId(u64::from_be_bytes(*pool)));
        let source = Source::of(IpAddr::V6(Ipv6Addr::from(id)));
        Some(self.claim(key, source))
    }

    fn renewal(&self) -> Option<Duration> {
        Some(self.limits.expiry.unwrap_or(LONGEST) / RENEWALS)
    }
}

/// What one client is filed under.
struct Filed {
    of: Arc<Shared>,
    key: Key,
    source: Source,
}

impl Claim for Filed {
    fn pool(&self) -> PoolId {
        self.key.pool()
    }

    fn name(&self) -> Vec<u8> {
        let mut name = self.of.place.as_bytes().to_vec();
        name.push(0);
        name.extend_from_slice(&self.key.pool().0.to_be_bytes());
        name.extend_from_slice(self.key.id());
        name
    }

    fn expiry(&self) -> Option<Duration> {
        self.of.limits.expiry
    }

    fn left(&self, age: Duration) -> Option<Duration> {
        let life = self.of.limits.lifetime.of(self.key.mark());
        life.map(|life| life.saturating_sub(age))
    }

    fn is_proved(&self) -> bool {
        self.of.proved
    }

    fn adopt(&self, node: NodeId, age: Duration, second: u64) -> Adopted {
        let filed = (self.key, self.source);
        let agreed = (node, age, second);
        self.of.table.adopt(filed, agreed, &self.of.limits)
    }

    fn presume(&self, node: NodeId, second: u64) {
        let filed = (self.key, self.source);
        let presumed = (node, second);
        self.of.table.presume(filed, presumed, &self.of.limits);
    }

    fn holds(&self, node: NodeId) -> bool {
        let of = &self.of;
        let known = of.table.recall(&self.key, &of.limits, Instant::now());
        known.is_some_and(|known| known.node == node)
    }

    fn forget(&self, node: NodeId) {
        self.of.table.forget_named(&self.key, node);
    }
}
