//! By the client's address, without state: weighted rendezvous hashing. When a node goes, only
//! its clients move; when it returns, only they come back.

use super::{Candidate, Method, Seed};

/// `hash`.
pub struct Hash;

impl Method for Hash {
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize {
        let score = |c: &Candidate| {
            // -weight / ln(u), u uniform in (0, 1): the highest wins with probability by weight.
            let u = (mix(seed.client ^ c.id.0) >> 11) as f64 / (1u64 << 53) as f64;
            -f64::from(c.weight) / u.max(f64::MIN_POSITIVE).ln()
        };
        let mut best = 0;
        for i in 1..candidates.len() {
            if score(&candidates[i]) > score(&candidates[best]) {
                best = i;
            }
        }
        best
    }
}

/// SplitMix64's finaliser: every input bit changes half of the output bits.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
