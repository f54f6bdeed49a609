//! Computes a client's node from its address by rendezvous hashing: the same on every edge, without memory.
//!
//! In: address, pool, and which nodes are usable. Out: the usable node with the highest lot. When a node
//! goes, only its own clients move, each to its own second choice. Weights do not count.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::api::{NodeId, PoolId};

/// The nodes of every pool.
pub struct Rendezvous(Vec<(PoolId, Vec<NodeId>)>);

impl Rendezvous {
    /// Makes it from the configuration's pools with their nodes' names.
    pub fn new(pools: &[(&str, &[String])]) -> Self {
        let nodes = |names: &[String]| names.iter().map(|n| NodeId::of(n)).collect();
        Rendezvous(
            pools
                .iter()
                .map(|(p, n)| (PoolId::of(p), nodes(n)))
                .collect(),
        )
    }

    /// Returns the usable node of `pool` with the highest lot for `client`. Calls `usable` only for a node
    /// whose lot is higher than all before: about eight calls among 1,000 usable nodes.
    pub fn best(
        &self,
        client: IpAddr,
        pool: PoolId,
        usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let (_, nodes) = self.0.iter().find(|(p, _)| *p == pool)?;
        let client = hash(client);
        let mut best = None;
        for node in nodes {
            let drawn = Some((lot(client, *node), *node));
            if drawn > best && usable(*node) {
                best = drawn;
            }
        }
        best.map(|(_, node)| node)
    }
}

/// Returns the lot of `node` for a client, given by the hash of its address. It is the same on every edge and
/// in every release.
pub fn lot(client: u64, node: NodeId) -> u64 {
    // SplitMix64's finaliser: every input bit changes half of the output bits.
    let mut x = client ^ node.0;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hashes an address with fixed keys, because all edges must agree.
fn hash(client: IpAddr) -> u64 {
    let mut h = SipHasher13::new_with_keys(0x7265_6e64, 0x6576_6f75);
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
        let asked = std::cell::Cell::new(0);
        let many: Vec<_> = (0..1000).map(|i| format!("n{i}")).collect();
        let many = Rendezvous::new(&[("push", &many)]);
        for i in 0..100_u32 {
            many.best(IpAddr::V4(i.into()), pool, &|_| {
                asked.set(asked.get() + 1);
                true
            });
        }
        assert!(asked.get() < 100 * 12, "{} looks at nodes", asked.get());
        let client = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(r.best(client, pool, &|_| false), None);
        assert_eq!(r.best(client, PoolId::of("nowhere"), &|_| true), None);
    }
}
