//! By the client's address, without state: weighted rendezvous hashing. When a node goes, only
//! its clients move; when it returns, only they come back.

use pushgate_plugins::api::NodeId;
use pushgate_plugins::sticky_ip::rendezvous;

/// The place of the node with the highest -weight / ln(u) of those that are `open`, u the client's lot at it,
/// uniform in (0, 1): it wins with probability by weight. Which are open is asked only where a node is ahead of
/// all before it, some eight times among 1,000 that are.
pub fn best(
    nodes: impl Iterator<Item = (NodeId, u32)>,
    client: u64,
    open: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (mut best, mut highest) = (None, 0.0);
    for (place, (id, weight)) in nodes.enumerate() {
        // 53 bits, all that a double holds exactly.
        let u = (rendezvous::lot(client, id) >> 11) as f64 / (1_u64 << 53) as f64;
        let weight = f64::from(weight);
        // -ln(u) is never below 1 - u, and close to it for high lots: mostly no logarithm is needed.
        if weight > highest * (1.0 - u) {
            let score = -weight / u.max(f64::MIN_POSITIVE).ln();
            if score > highest && open(place) {
                (best, highest) = (Some(place), score);
            }
        }
    }
    best
}
