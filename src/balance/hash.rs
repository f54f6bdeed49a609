//! Chooses by the client's address, without state: weighted rendezvous hashing. When a node goes, only its
//! clients move; when it returns, only they come back.

use pushgate_plugins::api::NodeId;
use pushgate_plugins::rendezvous;

/// Returns the index of the open node with the highest -weight / ln(u). Here u is a hash of client and node,
/// uniform in (0, 1), so a node wins with a probability in proportion to its weight. `open` is asked only for
/// a node that is ahead of all before it: about eight times among 1,000 open nodes.
pub fn best(
    nodes: impl Iterator<Item = (NodeId, u32)>,
    client: u64,
    open: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (mut best, mut highest) = (None, 0.0);
    for (place, (id, weight)) in nodes.enumerate() {
        // Keeps 53 bits, the most that a double holds exactly.
        let u = (rendezvous::lot(client, id) >> 11) as f64 / (1_u64 << 53) as f64;
        let weight = f64::from(weight);
        // -ln(u) >= 1 - u, and close to it for high u. So this test mostly saves the logarithm.
        if weight > highest * (1.0 - u) {
            let score = -weight / u.max(f64::MIN_POSITIVE).ln();
            if score > highest && open(place) {
                (best, highest) = (Some(place), score);
            }
        }
    }
    best
}
