//! Notes what a live flow has moved and for whom it waits, so that an operator can ask without disturbing its thread.
//!
//! In: bytes and waits, from the relay at the end of each of its steps. Out: the same for a thread that asks; the
//! length of each wait, for the metric. The relay alone writes, so a note is a few plain stores. It reads a clock only
//! if something has changed, and asks the kernel nothing.
//! Source: issue "who is slow".

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::kernel;
use crate::observe::metrics;

/// Shortest wait that is counted. Below it, a flow in bulk waits for its peer hundreds of times a second.
pub const SHORTEST: Duration = Duration::from_millis(100);

/// A point of time in 1/64 s. Wraps after two years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks(u32);

impl Ticks {
    /// Returns the time now.
    pub fn now() -> Self {
        Ticks(kernel::coarse_time())
    }

    /// Returns the time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Ticks) -> Duration {
        let passed = self.0.wrapping_sub(earlier.0).cast_signed().max(0);
        Duration::from_millis(u64::from(passed.cast_unsigned()) * 1000 / 64)
    }
}

/// For what a flow waits, and from which sides it would read now. A set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits(u8);

impl Waits {
    /// For nothing.
    pub const NONE: Waits = Waits(0);
    /// For a connection to a node.
    pub const CONNECT: Waits = Waits(1);
    /// For the node's answer to a whole request.
    pub const ANSWER: Waits = Waits(2);
    /// Until the node takes bytes.
    pub const TO_NODE: Waits = Waits(4);
    /// For the rest of the client's request; no answer has begun.
    pub const REQUEST: Waits = Waits(8);
    /// Until the client takes bytes.
    pub const TO_CLIENT: Waits = Waits(16);
    /// Bytes of the client would be read at once.
    pub const READS_CLIENT: Waits = Waits(32);
    /// Bytes of the node would be read at once.
    pub const READS_NODE: Waits = Waits(64);

    /// The waits for which the node is responsible.
    const OF_NODE: Waits = Waits(1 | 2 | 4);
    /// The waits for which the client is responsible.
    const OF_CLIENT: Waits = Waits(8 | 16);

    /// Whether the set has one of `others`.
    pub const fn has(self, others: Waits) -> bool {
        self.0 & others.0 != 0
    }

    /// Returns the set with `other` if `applies`.
    pub const fn with(self, other: Waits, applies: bool) -> Waits {
        match applies {
            true => Waits(self.0 | other.0),
            false => self,
        }
    }
}

/// The state of one live flow.
pub struct Meter {
    up: AtomicU64,
    down: AtomicU64,
    /// When a byte moved last.
    moved: AtomicU32,
    /// Since when the flow waits for its client, and for its node.
    client_since: AtomicU32,
    node_since: AtomicU32,
    /// The waits in the lowest byte; above it, the bytes held in units of [`UNIT`].
    state: AtomicU32,
    /// The client's socket and the node's; -1 for none. The relay takes them out before it closes them.
    sockets: Mutex<[RawFd; 2]>,
}

/// Held bytes are noted in units of so many.
const UNIT: usize = 64;

/// What a [`Meter`] says of its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Bytes to the node and to the client.
    pub bytes: (u64, u64),
    /// Bytes that the relay holds for the client, rounded up to 64.
    pub held: u64,
    /// Time since a byte moved.
    pub silent: Duration,
    /// For what the flow waits.
    pub waits: Waits,
    /// How long it has waited for its client, and for its node; zero if it does not.
    pub waited: (Duration, Duration),
}

impl Default for Meter {
    fn default() -> Self {
        let now = Ticks::now().0;
        Meter {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            moved: AtomicU32::new(now),
            client_since: AtomicU32::new(now),
            node_since: AtomicU32::new(now),
            state: AtomicU32::new(Waits::CONNECT.0.into()),
            sockets: Mutex::new([-1, -1]),
        }
    }
}

impl Meter {
    /// Returns what was noted last.
    pub fn noted(&self, now: Ticks) -> Noted {
        let state = self.state.load(Relaxed);
        let waits = Waits(state as u8);
        let since = |at: &AtomicU32| now.since(Ticks(at.load(Relaxed)));
        let waited = |who, at| match waits.has(who) {
            true => since(at),
            false => Duration::ZERO,
        };
        Noted {
            bytes: (self.up.load(Relaxed), self.down.load(Relaxed)),
            held: u64::from(state >> 8) * UNIT as u64,
            silent: since(&self.moved),
            waits,
            waited: (
                waited(Waits::OF_CLIENT, &self.client_since),
                waited(Waits::OF_NODE, &self.node_since),
            ),
        }
    }

    /// Calls `ask` with the sockets of the client and the node, which stay open meanwhile; `None`: the flow has none
    /// of its own there. A flow that ends waits for it, so it must take no longer than some system calls.
    pub fn with_sockets<T>(&self, ask: impl FnOnce(Option<RawFd>, Option<RawFd>) -> T) -> T {
        let sockets = self.sockets.lock();
        let open = |fd: RawFd| (fd >= 0).then_some(fd);
        ask(open(sockets[0]), open(sockets[1]))
    }

    fn turn(&self, to: Waits, (up, down): (bool, bool), now: Ticks) {
        let from = Waits(self.state.load(Relaxed) as u8);
        let turn = |who: Waits, moved: bool, at: &AtomicU32, word| {
            let begins = to.has(who) && (moved || !from.has(who));
            if from.has(who) && (begins || !to.has(who)) {
                count(word, now.since(Ticks(at.load(Relaxed))));
            }
            if begins {
                at.store(now.0, Relaxed);
            }
        };
        turn(Waits::OF_CLIENT, down, &self.client_since, "client");
        turn(Waits::OF_NODE, up, &self.node_since, "node");
    }
}

/// Counts a wait for `who`, unless it was too short.
pub fn count(who: &str, waited: Duration) {
    if waited >= SHORTEST {
        let stalls = &metrics::get().stalls;
        let seconds = waited.as_secs_f64();
        stalls.with_label_values(&[who]).observe(seconds);
    }
}

/// A side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The client.
    Client,
    /// The node.
    Node,
}

impl Peer {
    /// Returns the word of API and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Peer::Client => "client",
            Peer::Node => "node",
        }
    }
}

/// A peer that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which one.
    pub peer: Peer,
    /// How long no byte had passed when it was lost.
    pub silent: Duration,
}

/// Shortest silence that is remembered when bytes move again.
const SILENCE: Duration = Duration::from_secs(1);

/// The relay's hold of its flow's [`Meter`].
pub struct Measured {
    meter: Arc<Meter>,
    /// When bytes moved again after the last silence, and how long that was, in 1/64 s.
    resumed: Ticks,
    silence: u32,
}

impl Measured {
    /// Begins to measure a flow between two sockets; `None`: that side has none of its own.
    pub fn begin(meter: &Arc<Meter>, client: Option<RawFd>, node: Option<RawFd>) -> Self {
        *meter.sockets.lock() = [client.unwrap_or(-1), node.unwrap_or(-1)];
        Measured {
            meter: meter.clone(),
            resumed: Ticks(meter.moved.load(Relaxed)),
            silence: 0,
        }
    }

    /// Notes the bytes that have passed to the node and to the client, those held for the client, and the waits.
    pub fn note(&mut self, (up, down): (u64, u64), held: usize, waits: Waits) {
        let meter = &*self.meter;
        let moved = (
            up != meter.up.load(Relaxed),
            down != meter.down.load(Relaxed),
        );
        let units = u32::try_from(held.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let state = units.min(u32::MAX >> 8) << 8 | u32::from(waits.0);
        if moved == (false, false) && state == meter.state.load(Relaxed) {
            return;
        }
        let now = Ticks::now();
        meter.turn(waits, moved, now);
        meter.state.store(state, Relaxed);
        if moved != (false, false) {
            let before = Ticks(meter.moved.load(Relaxed));
            if now.since(before) >= SILENCE {
                (self.resumed, self.silence) = (now, now.0.wrapping_sub(before.0));
            }
            meter.moved.store(now.0, Relaxed);
            meter.up.store(up, Relaxed);
            meter.down.store(down, Relaxed);
        }
    }

    /// Returns how long the connection had been silent when its peer was lost. `unanswered`: for how long the peer has
    /// left bytes without an answer; `None`: it owed none. If it owed one since the last silence ended, that silence
    /// was the one in which it was lost.
    pub fn silent_before_loss(&self, unanswered: Option<Duration>) -> Duration {
        let now = Ticks::now();
        let resumed = now.since(self.resumed);
        match unanswered {
            Some(unheard) if self.silence > 0 && unheard >= resumed => self
                .resumed
                .since(Ticks(self.resumed.0.wrapping_sub(self.silence))),
            _ => now.since(Ticks(self.meter.moved.load(Relaxed))),
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        *self.meter.sockets.lock() = [-1, -1];
        // What follows is another try, or the end.
        let now = Ticks::now();
        self.meter.turn(Waits::NONE, (false, false), now);
        self.meter.node_since.store(now.0, Relaxed);
        let state = Waits::CONNECT.0.into();
        self.meter.state.store(state, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(seconds: u32) -> Ticks {
        Ticks(seconds.wrapping_mul(64))
    }

    /// Aim: time passes right where the count wraps, and never backwards. Fails if a wait of two years seems to begin
    /// when the count wraps.
    #[test]
    fn ticks_wrap() {
        let cases = [
            (Ticks(u32::MAX - 63), Ticks(64), 2000),
            (ticks(5), ticks(8), 3000),
            (ticks(8), ticks(5), 0),
        ];
        for (from, to, milliseconds) in cases {
            assert_eq!(to.since(from), Duration::from_millis(milliseconds));
        }
    }

    /// Aim: a wait goes on until a byte moves its way, then begins anew. Fails if bytes of the other way end it, or if
    /// a client that takes a byte now and then seems stalled for hours.
    #[test]
    fn a_wait_begins_anew_when_bytes_move() {
        let meter = Meter::default();
        let set = |waits: Waits| meter.state.store(waits.0.into(), Relaxed);
        let both = Waits::TO_CLIENT.with(Waits::TO_NODE, true);
        let begin = Ticks::now();
        let at = |seconds: u32| Ticks(begin.0.wrapping_add(64 * seconds));
        set(Waits::NONE);
        meter.turn(both, (false, false), at(10));
        set(both);
        meter.turn(both, (true, false), at(15));
        let seconds = |s| Duration::from_secs(s);
        assert_eq!(meter.noted(at(20)).waited, (seconds(10), seconds(5)));
        meter.turn(both, (false, true), at(20));
        assert_eq!(meter.noted(at(21)).waited, (seconds(1), seconds(6)));
        set(Waits::READS_NODE);
        assert_eq!(meter.noted(at(22)).waited, (seconds(0), seconds(0)));
    }

    /// Aim: a peer is lost in the silence before the first byte that it left without an answer. Fails if the message
    /// that found the loss counts as the end of that silence: every loss would seem to come without one.
    #[test]
    fn the_silence_is_that_before_the_unanswered_byte() {
        let meter = Arc::new(Meter::default());
        let now = Ticks::now();
        let ago = |seconds: u32| Ticks(now.0.wrapping_sub(64 * seconds));
        let mut measured = Measured::begin(&meter, None, None);
        // Silent for 300 s, then a message 12 s ago, and another one 2 s ago.
        (measured.resumed, measured.silence) = (ago(12), 300 * 64);
        meter.moved.store(ago(2).0, Relaxed);
        let cases = [
            (Some(312), 300, "nothing was heard since before the silence"),
            (Some(5), 2, "the first message was answered"),
            (None, 2, "everything was answered"),
        ];
        for (unanswered, seconds, name) in cases {
            let silent = measured.silent_before_loss(unanswered.map(Duration::from_secs));
            assert_eq!(silent.as_secs(), seconds, "{name}");
        }
    }

    /// Aim: the sockets of a flow are asked while they are open. Fails if a flow that ended leaves them: their numbers
    /// may belong to another flow.
    #[test]
    fn a_flow_that_ends_takes_its_sockets_along() {
        let meter = Arc::new(Meter::default());
        let mut measured = Measured::begin(&meter, Some(7), None);
        measured.note((1, 2), 65, Waits::TO_CLIENT);
        assert_eq!(meter.with_sockets(|c, n| (c, n)), (Some(7), None));
        let noted = meter.noted(Ticks::now());
        assert_eq!(
            (noted.bytes, noted.held, noted.waits),
            ((1, 2), 128, Waits::TO_CLIENT)
        );
        drop(measured);
        assert_eq!(meter.with_sockets(|c, n| (c, n)), (None, None));
        assert!(meter.noted(Ticks::now()).waits.has(Waits::CONNECT));
    }
}
