//! The queue of events, ordered by time. Events of one instant come in the order of their creation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Pending events. Times are nanoseconds from the start of the run.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    made: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            made: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Adds an event that happens at `at`.
    pub fn add(&mut self, at: u64, event: E) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.made += 1;
        self.heap.push(Reverse((at, self.made, place)));
    }

    /// Removes the next event; returns its time and the event.
    pub fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((at, self.events[place].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn events_come_by_time_then_by_order() {
        let mut queue = Queue::default();
        for (at, what) in [(2, "c"), (1, "a"), (2, "d"), (1, "b")] {
            queue.add(at, what);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(order, [(1, "a"), (1, "b"), (2, "c"), (2, "d")]);
    }
}
