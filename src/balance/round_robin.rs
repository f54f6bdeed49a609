//! Each node in turn, by weight, interleaved: 2:1 gives A B A, not A A B.
//!
//! In: which nodes may be given a flow now, and their weights. Out: the node whose turn it is. Pure. Nodes
//! stand in a row by when they are due, so a pick among 1,000 moves one of them. Nobody tells of a node that
//! shuts or opens: one that is shut when its turn comes steps aside, and each pick looks whether a few of
//! those are open again.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;

/// `round_robin`: a node is due every 1/weight of a round. Nodes are known by their places in the pool.
pub struct RoundRobin {
    row: BinaryHeap<Reverse<Turn>>,
    /// Nodes that were shut when it was their turn, and before the first pick all.
    aside: VecDeque<Aside>,
    /// The latest turn that was taken.
    now: u128,
    /// Of the pick under way, those it may not have: they keep their turns.
    kept: Vec<Reverse<Turn>>,
}

/// When a node is due; of equal turns the first place goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    due: u128,
    place: usize,
}

/// A node beside the row, due when `left` has passed since `since`.
#[derive(Clone, Copy)]
struct Aside {
    place: usize,
    since: u128,
    left: TimeToTurn,
}

/// What is left of the time from one turn of a node to its next, as a part of [`ROUND`]: how long that is, its
/// weight says, which may change until it joins the row.
#[derive(Clone, Copy)]
pub struct TimeToTurn(u128);

/// A round, in which a node has as many turns as its weight. So long that what is rounded down of a weight's
/// part makes a turn in 2^44 rounds only; the clock is full after 2^64.
const ROUND: u128 = 1 << 64;
/// Nodes aside that a pick looks at: of 500 that are Down, one that returns is seen after 62 picks.
const LOOKS: usize = 8;

impl TimeToTurn {
    /// A node that is new is in the middle between two turns: so the heavy neither all go first nor last.
    pub const NEW: TimeToTurn = TimeToTurn(ROUND / 2);
}

impl RoundRobin {
    /// One node for each item.
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

    /// How far each node, by its place, is from its turn.
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

    /// The node whose turn it is: the first in the row that is `open`, with that weight, and not `tried` for
    /// this flow. `None`: there is none.
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

    /// Looks at so many of those aside; the open ones join the row.
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
