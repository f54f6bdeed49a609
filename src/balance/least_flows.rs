//! The node with the fewest live flows for its weight; equal ones by lot, so that a cold start
//! does not send every first client to the first node.

use super::{Candidate, Method, Seed};

/// `least_flows`.
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
        // The first of them is known; the others are looked for only where there are any.
        let least = load(&candidates[best]);
        let nth = (seed.random % equal) as usize;
        let same = (best..candidates.len()).filter(|i| load(&candidates[*i]) == least);
        same.clone().nth(nth).unwrap_or(best)
    }
}

/// Live flows for the weight, this one included; weights are at most 1,000.
fn load(c: &Candidate) -> u64 {
    (c.live as u64 + 1) * 1_000_000 / u64::from(c.weight)
}
