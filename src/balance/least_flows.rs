//! The node with the fewest live flows for its weight; equal ones by lot, so that a cold start
//! does not send every first client to the first node.

use super::{Candidate, Method, Seed};

/// `least_flows`.
pub struct LeastFlows;

impl Method for LeastFlows {
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize {
        let load = |c: &Candidate| (c.live as u128 + 1) * 1_000_000 / u128::from(c.weight);
        let least = candidates.iter().map(load).min().unwrap_or(0);
        let equal: Vec<usize> = (0..candidates.len())
            .filter(|i| load(&candidates[*i]) == least)
            .collect();
        equal[(seed.random % equal.len() as u64) as usize]
    }
}
