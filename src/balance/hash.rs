//! By the client's address, without state: weighted rendezvous hashing. When a node goes, only
//! its clients move; when it returns, only they come back.

use pushgate_plugins::sticky_ip::rendezvous;

use super::{Candidate, Method, Seed};

/// `hash`.
pub struct Hash;

impl Method for Hash {
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize {
        let lots = candidates.iter().map(|c| Lot {
            draw: rendezvous::lot(seed.client, c.id) >> 11,
            weight: c.weight,
        });
        let better = |a: (usize, Lot), b: (usize, Lot)| if b.1.beats(a.1) { b } else { a };
        lots.enumerate().reduce(better).map_or(0, |(at, _)| at)
    }
}

/// What a node has drawn for a client.
#[derive(Clone, Copy)]
struct Lot {
    /// 53 bits, all that a double holds exactly.
    draw: u64,
    weight: u32,
}

impl Lot {
    /// Of equal weights the higher draw has the higher score: mostly no logarithm is needed.
    fn beats(self, other: Lot) -> bool {
        if self.weight == other.weight {
            return self.draw > other.draw;
        }
        self.score() > other.score()
    }

    /// -weight / ln(u), u uniform in (0, 1): the highest wins with probability by weight.
    fn score(self) -> f64 {
        let u = self.draw as f64 / (1u64 << 53) as f64;
        -f64::from(self.weight) / u.max(f64::MIN_POSITIVE).ln()
    }
}
