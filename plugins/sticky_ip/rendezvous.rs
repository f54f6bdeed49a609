//! Rendezvous hashing: the node an address computes to, on every edge the same, without memory.
//!
//! In: address, pool, which nodes may be used. Out: the usable node with the highest hash. When a
//! node goes only its own clients move, each to its own second choice. Weights do not count.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::api::{NodeId, PoolId};

/// Nodes of every pool.
pub struct Rendezvous(Vec<(PoolId, Vec<NodeId>)>);

impl Rendezvous {
    /// From the configuration's pools with their nodes' names.
    pub fn new(pools: &[(&str, &[String])]) -> Self {
        let nodes = |names: &[String]| names.iter().map(|n| NodeId::of(n)).collect();
        Rendezvous(
            pools
                .iter()
                .map(|(p, n)| (PoolId::of(p), nodes(n)))
                .collect(),
        )
    }

    /// The usable node of `pool` with the highest hash for `client`; one hash a node.
    pub fn best(
        &self,
        client: IpAddr,
        pool: PoolId,
        usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let (_, nodes) = self.0.iter().find(|(p, _)| *p == pool)?;
        nodes
            .iter()
            .copied()
            .filter(|n| usable(*n))
            .max_by_key(|n| (score(client, *n), *n))
    }
}

/// Fixed keys: all edges must agree.
fn score(client: IpAddr, node: NodeId) -> u64 {
    let mut h = SipHasher13::new_with_keys(0x7265_6e64, node.0);
    match client {
        IpAddr::V4(a) => h.write(&a.octets()),
        IpAddr::V6(a) => h.write(&a.octets()),
    }
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_lost_node_moves_only_its_own_clients() {
        let names: Vec<_> = (1..=5).map(|i| format!("ls{i}")).collect();
        let r = Rendezvous::new(&[("push", &names)]);
        let (pool, lost) = (PoolId::of("push"), NodeId::of("ls3"));
        let mut counts: HashMap<_, u32> = HashMap::new();
        let mut inherited: HashMap<_, u32> = HashMap::new();
        for i in 0..20_000_u32 {
            let client = IpAddr::V4((0x0a00_0000 + i).into());
            let first = r.best(client, pool, &|_| true).expect("node");
            let then = r.best(client, pool, &|n| n != lost).expect("node");
            *counts.entry(first).or_default() += 1;
            if first == lost {
                *inherited.entry(then).or_default() += 1;
            } else {
                assert_eq!(first, then, "{client}");
            }
        }
        assert!(
            counts.values().all(|c| c.abs_diff(4_000) < 300),
            "{counts:?}"
        );
        assert_eq!(
            inherited.len(),
            4,
            "the lost node's clients spread: {inherited:?}"
        );
        let client = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(r.best(client, pool, &|_| false), None);
        assert_eq!(r.best(client, PoolId::of("nowhere"), &|_| true), None);
    }
}
