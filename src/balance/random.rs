//! Draws two nodes by weight and takes the less loaded: close to `least_flows` without comparing all nodes.

use super::method::{Candidate, Method, Seed};

/// Balances by `random`.
pub struct Random;

impl Method for Random {
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize {
        let a = draw(candidates, seed.random & 0xffff_ffff);
        let b = draw(candidates, seed.random >> 32);
        // Compares loads without division: live_a / weight_a <= live_b / weight_b.
        let side =
            |x: usize, y: usize| candidates[x].live as u128 * u128::from(candidates[y].weight);
        if side(a, b) <= side(b, a) { a } else { b }
    }
}

fn draw(candidates: &[Candidate], random: u64) -> usize {
    let sum: u64 = candidates.iter().map(|c| u64::from(c.weight)).sum();
    let mut left = random % sum.max(1);
    for (i, c) in candidates.iter().enumerate() {
        match left.checked_sub(u64::from(c.weight)) {
            Some(rest) => left = rest,
            None => return i,
        }
    }
    0
}
