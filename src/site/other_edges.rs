//! Tells the other edges what the tables of this one change by themselves.
//!
//! In: assignments made without asking, and clients that a rebalance has forgotten. Out: keys of the store, and a
//! message to all edges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{Claim, NodeId, Peers, SharedTable};
use redis::cmd;

use super::claims::{Claims, DEADLINE, FORGOTTEN, Joined, count, set, word};
use super::value::Value;

/// Removes a key if its node is the one that was forgotten.
const REMOVE: &str = "local v = redis.call('GET', KEYS[1]) \
                      if v and string.sub(v, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";

/// The other edges, as the tables of plugins see them.
pub struct OtherEdges(pub Arc<Claims>);

impl Peers for OtherEdges {
    fn join(&self, place: &str, table: Arc<dyn SharedTable>) {
        let mut tables = self.0.tables.lock();
        let told = tables
            .get(place)
            .map_or_else(|| Some(Instant::now()), |before| before.told);
        let configuration = self.0.configuration.load(Ordering::Relaxed);
        let joined = Joined {
            table,
            told,
            configuration,
        };
        tables.insert(place.to_owned(), joined);
    }

    fn assigned(&self, claim: Arc<dyn Claim>, node: NodeId, age: Duration, certain: bool) {
        // What is assigned without the store is told when it is back.
        let is_there = self.0.store.is_connected();
        let Some(way) = is_there.then(|| self.0.way()).flatten() else {
            return;
        };
        self.0.runtime.spawn(async move {
            let claims = &way.0;
            count(match certain {
                true => claims.write(&*claim, node, age).await,
                false => claims.settle(&*claim, Some(node), &[]).await,
            });
        });
    }

    fn forgot(&self, claim: Arc<dyn Claim>, node: NodeId) {
        let is_there = self.0.store.is_connected();
        let Some(way) = is_there.then(|| self.0.way()).flatten() else {
            return;
        };
        self.0
            .runtime
            .spawn(async move { way.0.remove(&*claim, node).await });
    }
}

impl Claims {
    /// Writes what is certain, whatever the store has.
    async fn write(&self, claim: &dyn Claim, node: NodeId, age: Duration) -> &'static str {
        let named = self
            .pool(claim.pool())
            .and_then(|p| Some(p.node(node)?.name.clone()));
        let (Some(name), Ok(key)) = (named, self.key_of(claim)) else {
            return "failed";
        };
        let set = set(&key, &Value::new(&name, age).text(), claim, age, &[]);
        match self.store.call::<()>(&set, DEADLINE).await {
            Ok(()) => "won",
            Err(e) => word(&e),
        }
    }

    /// Removes an assignment to `node`, and tells the other edges.
    pub(super) async fn remove(&self, claim: &dyn Claim, node: NodeId) {
        let named = self
            .pool(claim.pool())
            .and_then(|p| Some(p.node(node)?.name.clone()));
        let (Some(name), Ok(key)) = (named, self.key_of(claim)) else {
            return;
        };
        let mut remove = cmd("EVAL");
        remove.arg(REMOVE).arg(1).arg(&key).arg(format!("{name} "));
        // What is lost here is found as a contradiction, or ends by its expiry.
        let _ = self.store.call::<()>(&remove, DEADLINE).await;
        self.tell_forgotten(claim, node).await;
    }

    /// Tells the other edges that the client is no more at `node`.
    pub(super) async fn tell_forgotten(&self, claim: &dyn Claim, node: NodeId) {
        let message = [
            &self.own.to_be_bytes()[..],
            &node.0.to_be_bytes(),
            &claim.name(),
        ]
        .concat();
        let Ok(sealed) = self.key.seal(&message) else {
            return;
        };
        let _ = self.store.tell(FORGOTTEN, &sealed, DEADLINE).await;
    }
}
