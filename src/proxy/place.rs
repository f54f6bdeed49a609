//! Says whether a client connection is idle, and tells an idle one to close.
//!
//! In: flows that begin and end. Out: since when the connection has no flow; the word to close. A connection
//! is idle before its first flow (handshake, first head), between two requests of HTTP/1, and without a
//! stream over HTTP/2. A flow that begins takes the word back, so no live flow is ever cut for room.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;

/// The state of one client connection: idle since a time, with a number of flows, or told to close.
pub struct Place {
    state: AtomicU64,
    task: AtomicWaker,
    /// Its position in its client's list, beyond the end before it is there. The lock of that list guards it.
    pub(super) at: AtomicUsize,
}

/// A point of time in microseconds since this process first asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

/// Set where the rest counts flows. Otherwise the state is the time since which the connection is idle.
const BUSY: u64 = 1 << 63;
/// Told to close.
const TOLD: u64 = BUSY - 1;

impl Micros {
    /// Returns the time now.
    pub fn now() -> Self {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        let begun = BEGIN.get_or_init(Instant::now).elapsed();
        Micros(u64::try_from(begun.as_micros()).unwrap_or(TOLD) & (TOLD >> 1))
    }
}

impl Place {
    /// Makes the state of a connection that is idle since `now`.
    pub fn new(now: Micros) -> Self {
        Place {
            state: AtomicU64::new(now.0),
            task: AtomicWaker::new(),
            at: AtomicUsize::new(usize::MAX),
        }
    }

    /// Counts a flow. A connection that was told to close goes on.
    pub fn begin_flow(&self) {
        let begun = |state| {
            Some(if state & BUSY == 0 {
                BUSY | 1
            } else {
                state + 1
            })
        };
        let order = Ordering::SeqCst;
        let _ = self.state.fetch_update(order, order, begun);
    }

    /// Ends the count of a flow. Returns whether the connection is idle now.
    pub fn end_flow(&self, now: Micros) -> bool {
        let ended = |state| match state {
            state if state & BUSY == 0 => None,
            state if state == BUSY | 1 => Some(now.0),
            state => Some(state - 1),
        };
        let order = Ordering::SeqCst;
        self.state.fetch_update(order, order, ended) == Ok(BUSY | 1)
    }

    /// Returns since when the connection is idle; `None`: it has a flow, or was told to close.
    pub fn idle_since(&self) -> Option<Micros> {
        let state = self.state.load(Ordering::SeqCst);
        (state & BUSY == 0 && state != TOLD).then_some(Micros(state))
    }

    /// Tells the connection to close, if it is idle since `since` still. Returns whether it was told.
    pub fn tell(&self, since: Micros) -> bool {
        let order = Ordering::SeqCst;
        let told = self.state.compare_exchange(since.0, TOLD, order, order);
        if told.is_ok() {
            self.task.wake();
        }
        told.is_ok()
    }

    /// Ends the connection's life: it can make no room any more.
    pub fn gone(&self) {
        self.state.store(TOLD, Ordering::SeqCst);
    }

    /// Ready when the connection must close. Only the task that serves it may poll.
    pub fn poll_told(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        match self.state.load(Ordering::SeqCst) {
            TOLD => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_told(place: &Place) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        place.poll_told(&mut cx).is_ready()
    }

    /// Aim: only a connection that is idle since the time that was read is told to close. Fails if a flow that
    /// began meanwhile is cut, or one that ended meanwhile counts as idle for longer.
    #[test]
    fn only_an_idle_connection_is_told() {
        let place = Place::new(Micros(5));
        assert_eq!(place.idle_since(), Some(Micros(5)));
        place.begin_flow();
        assert!(place.idle_since().is_none() && !place.tell(Micros(5)));
        place.begin_flow();
        assert!(!place.end_flow(Micros(7)), "one is left");
        assert!(place.end_flow(Micros(9)) && !place.tell(Micros(5)));
        assert!(place.tell(Micros(9)) && is_told(&place));
        assert!(!place.tell(Micros(9)), "told once");
    }

    /// Aim: a request that was on its way is served. Fails if a flow does not take the word back.
    #[test]
    fn a_flow_takes_the_word_back() {
        let place = Place::new(Micros(5));
        assert!(place.tell(Micros(5)));
        place.begin_flow();
        assert!(!is_told(&place));
        assert!(place.end_flow(Micros(8)));
        assert_eq!(place.idle_since(), Some(Micros(8)));
    }
}
