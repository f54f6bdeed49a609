//! Holds the threads that serve clients, and counts the connections of each.
//!
//! In: runtimes. Out: the thread for a new connection, the one with the fewest. Push connections live for
//! hours, so an uneven start would stay uneven. Source: Lightstreamer clustering §1.

use prometheus::IntGauge;
use tokio::runtime::Handle;

/// The threads that serve client connections, each with its own runtime. Each kind has at least one.
pub struct Runtimes {
    /// Data threads, which carry bytes. A connection stays on the one that accepted it, or that got it after
    /// its handshake.
    pub data: Vec<Thread>,
    /// Handshake threads, so that no live connection waits for the arithmetic of a new one.
    pub handshakes: Vec<Thread>,
}

/// A thread with its runtime and the number of its connections.
#[derive(Clone)]
pub struct Thread {
    /// Its runtime.
    pub runtime: Handle,
    /// The number of its connections. The choice of a thread and the metric read the same number.
    connections: IntGauge,
}

impl Thread {
    /// Makes a thread that runs `runtime` and counts in `connections`.
    pub fn new(runtime: Handle, connections: IntGauge) -> Self {
        Thread {
            runtime,
            connections,
        }
    }

    /// Counts one more connection until the seat is dropped.
    pub fn seat(&self) -> Seat {
        self.connections.inc();
        Seat(self.connections.clone())
    }

    /// Returns the number of its connections.
    pub fn connections(&self) -> i64 {
        self.connections.get()
    }
}

/// A connection's place on a thread. Dropping it ends the count.
pub struct Seat(IntGauge);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Finds the thread with the fewest connections. Among equal ones it takes the first behind `after`: short
/// connections leave no trace in the counts, and so they take turns. `None`: no threads.
pub fn emptiest(threads: &[Thread], after: usize) -> Option<usize> {
    let n = threads.len();
    let ring = (1..=n).map(|step| after.wrapping_add(step) % n);
    ring.min_by_key(|at| threads[*at].connections())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(runtime: &Handle, counts: &[i64]) -> Vec<Thread> {
        let one = |count: &i64| {
            let connections = IntGauge::new("connections", "of a thread").expect("legal");
            connections.set(*count);
            Thread::new(runtime.clone(), connections)
        };
        counts.iter().map(one).collect()
    }

    /// Aim: the emptiest thread is next. Fails if the order of the threads decides, or if equal threads do
    /// not take turns.
    #[tokio::test]
    async fn the_emptiest_is_next() {
        let cases: [(&[i64], usize, Option<usize>, &str); 6] = [
            (&[], 0, None, "no thread"),
            (&[7], 0, Some(0), "one thread"),
            (&[3, 3, 3], 1, Some(2), "equal: the next"),
            (&[3, 3, 3], 2, Some(0), "equal: round the end"),
            (&[5, 4, 9], 1, Some(1), "the emptiest goes on"),
            (&[5, 9, 4, 4], 2, Some(3), "the next of the emptiest"),
        ];
        for (counts, after, expected, name) in cases {
            let threads = threads(&Handle::current(), counts);
            assert_eq!(emptiest(&threads, after), expected, "{name}");
        }
    }

    /// Aim: a connection counts while its seat lives. Fails if it counts for ever, or never.
    #[tokio::test]
    async fn a_seat_counts_while_it_lives() {
        let thread = threads(&Handle::current(), &[0]).remove(0);
        let seats = [thread.seat(), thread.seat()];
        assert_eq!(thread.connections(), 2);
        drop(seats);
        assert_eq!(thread.connections(), 0);
    }
}
