//! Chooses the node with the fewest live flows for its weight. Ties are broken at random, so that after a
//! cold start the first clients do not all go to the first node.

use super::method::{Candidate, Method, Seed};

/// Balances by `least_flows`.
pub struct LeastFlows;

impl Method for LeastFlows {
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize {
        let mut best = 0;
        let mut equal = 1;
        for i in 1..candidates.len() {
            match load(&candidates[i]).cmp(&load(&candidates[best])) {
                std::cmp::Ordering::Less => (best, equal) = (i, 1),
                std::cmp::Ordering::Equal => equal += 1,
                std::cmp::Ordering::Greater => {}
            }
        }
        // `best` is the first of the tied nodes; the scan for the others starts there.
        let least = load(&candidates[best]);
        let nth = (seed.random % equal) as usize;
        let same = (best..candidates.len()).filter(|i| load(&candidates[*i]) == least);
        same.clone().nth(nth).unwrap_or(best)
    }
}

/// Live flows per weight, with this flow counted; weights are at most 1,000.
fn load(c: &Candidate) -> u64 {
    (c.live as u64 + 1) * 1_000_000 / u64::from(c.weight)
}
