//! Gives each node its turn by weight, interleaved: 2:1 gives A B A, not A A B.
//!
//! In: which nodes may take a flow now (are open), and their weights. Out: the node whose turn it is. Pure.
//!
//! Nodes stand in a row, ordered by when they are due, so a pick among 1,000 nodes moves one. No event
//! reports that a node shuts or opens. A node that is shut at its turn steps aside, and each pick checks
//! whether some of the nodes aside are open again.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;

/// Balances by `round_robin`: a node is due every 1/weight of a round. A node is named by its
/// index in the pool.
pub struct RoundRobin {
    row: BinaryHeap<Reverse<Turn>>,
    /// Nodes that were shut at their turn; before the first pick, all nodes.
    aside: VecDeque<Aside>,
    /// When the latest turn was due.
    now: u128,
    /// Nodes that the current pick may not use; they keep their turns.
    kept: Vec<Reverse<Turn>>,
}

/// When a node is due (a round lasts [`ROUND`]); of equal turns the lower index goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    due: u128,
    place: usize,
}

/// A node outside the row, due when `left` has passed since `since`.
#[derive(Clone, Copy)]
struct Aside {
    place: usize,
    since: u128,
    left: TimeToTurn,
}

/// Fraction of a node's interval that is left until its next turn, in parts of [`ROUND`]. The weight turns it
/// into a time only when the node joins the row, because the weight may change until then.
#[derive(Clone, Copy)]
pub struct TimeToTurn(u128);

/// Length of a round, in which a node has as many turns as its weight. Rounding down a weight's part adds up
/// to one extra turn in 2^44 rounds; the clock overflows after 2^64 rounds.
const ROUND: u128 = 1 << 64;
/// Nodes aside that one pick checks: if 500 are Down and one returns, it is found within 62 picks.
const LOOKS: usize = 8;

impl TimeToTurn {
    /// A new node starts halfway between two turns, so that heavy nodes go neither all first nor all last.
    pub const NEW: TimeToTurn = TimeToTurn(ROUND / 2);
}

impl RoundRobin {
    /// Creates the state for one node per item; an item is the time to that node's turn.
    pub fn new(nodes: impl IntoIterator<Item = TimeToTurn>) -> Self {
        let aside = |(place, left)| Aside {
            place,
            since: 0,
            left,
        };
        RoundRobin {
            row: BinaryHeap::new(),
            aside: nodes.into_iter().enumerate().map(aside).collect(),
            now: 0,
            kept: Vec::new(),
        }
    }

    /// Returns for each node (by index) the time to its turn.
    pub fn left(&self, weight: impl Fn(usize) -> u32) -> impl Iterator<Item = (usize, TimeToTurn)> {
        let weight = move |place| NonZeroU32::new(weight(place)).unwrap_or(NonZeroU32::MIN);
        let due = |a: &Aside| a.turn(weight(a.place));
        let row = self.row.iter().map(|turn| turn.0);
        let turns: Vec<Turn> = row.chain(self.aside.iter().map(due)).collect();
        turns.into_iter().map(move |turn| {
            let part = turn.due.saturating_sub(self.now) * wide(weight(turn.place));
            (turn.place, TimeToTurn(part.min(ROUND)))
        })
    }

    /// Returns the node whose turn it is: the first in the row that is `open` and not `tried` for this flow.
    /// `open` returns the node's weight. `None`: no node is open and untried.
    pub fn next(
        &mut self,
        open: impl Fn(usize) -> Option<NonZeroU32>,
        tried: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let looks = if self.row.is_empty() {
            usize::MAX
        } else {
            LOOKS
        };
        self.rejoin(looks, &open);
        self.first(&open, &tried).or_else(|| {
            self.rejoin(usize::MAX, &open);
            self.first(&open, &tried)
        })
    }

    /// Checks up to `looks` of the nodes aside; those that are open join the row.
    fn rejoin(&mut self, looks: usize, open: impl Fn(usize) -> Option<NonZeroU32>) {
        for _ in 0..looks.min(self.aside.len()) {
            let Some(aside) = self.aside.pop_front() else {
                return;
            };
            match open(aside.place) {
                Some(weight) => {
                    let Turn { due, place } = aside.turn(weight);
                    let due = due.max(self.now);
                    self.row.push(Reverse(Turn { due, place }));
                }
                None => self.aside.push_back(aside),
            }
        }
    }

    fn first(
        &mut self,
        open: impl Fn(usize) -> Option<NonZeroU32>,
        tried: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut found = None;
        while let Some(mut head) = self.row.peek_mut() {
            let Turn { due, place } = head.0;
            if tried(place) {
                self.kept.push(PeekMut::pop(head));
            } else if let Some(weight) = open(place) {
                head.0.due = due + ROUND / wide(weight);
                self.now = self.now.max(due);
                found = Some(place);
                break;
            } else {
                PeekMut::pop(head);
                self.aside.push_back(Aside {
                    place,
                    since: due,
                    left: TimeToTurn(0),
                });
            }
        }
        self.row.extend(self.kept.drain(..));
        found
    }
}

impl Aside {
    fn turn(&self, weight: NonZeroU32) -> Turn {
        Turn {
            due: self.since + self.left.0 / wide(weight),
            place: self.place,
        }
    }
}

fn wide(weight: NonZeroU32) -> u128 {
    u128::from(weight.get())
}

#[cfg(test)]
mod tests;
