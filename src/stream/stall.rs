//! Decides who makes a flow wait: its client, its node, or the edge.
//!
//! In: what the relay has noted, and what the kernel says of both sockets. Out: who, why and for how long. Silence is
//! no stall: a flow whose bytes have all arrived waits for nobody.
//! The facts of the kernel matter for small messages: it takes several before the relay must wait.
//! Source: issue "who is slow"; RFC 9293 §3.8.6 (the window).

use std::os::fd::RawFd;
use std::time::Duration;

use super::kernel::{self, Info};
use super::meter::{Meter, Noted, Ticks, Waits};

/// Time for which bytes may be readable before the edge counts as slow. A look at a page of flows takes as long.
pub const LATE: Duration = Duration::from_millis(50);
/// Time for which sent bytes may stay unacknowledged; round trips and delayed acknowledgements are shorter.
const UNACKNOWLEDGED: Duration = Duration::from_secs(1);

/// Who makes a flow wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Nobody: no byte waits.
    Idle,
    /// Its client, or the network to it.
    Client,
    /// Its node, or the network to it.
    Node,
    /// This process: its thread is busy.
    Edge,
}

impl Who {
    /// Returns the word of API, command line and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Who::Idle => "idle",
            Who::Client => "client",
            Who::Node => "node",
            Who::Edge => "edge",
        }
    }
}

/// Why a flow waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has no connection to a node yet.
    Connect,
    /// The node has the whole request, and has not answered.
    Answer,
    /// The client has not sent the rest of its request.
    Request,
    /// The peer's window is full: its program does not read.
    NotReading,
    /// The peer reads, but its network takes bytes slowly.
    Network,
    /// The peer has left bytes unacknowledged for a second.
    Unacknowledged,
    /// The peer's HTTP/2 stream takes no bytes: its window is full, or other streams come first.
    Stream,
    /// Bytes can be read, and the thread has not come to it.
    Busy,
}

impl Why {
    /// Returns the word of the API and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Connect => "connect",
            Why::Answer => "answer",
            Why::Request => "request",
            Why::NotReading => "not_reading",
            Why::Network => "network",
            Why::Unacknowledged => "unacknowledged",
            Why::Stream => "stream",
            Why::Busy => "busy",
        }
    }
}

/// What the kernel says of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// The facts of the connection.
    pub info: Info,
    /// Bytes that the peer has not acknowledged, with those not sent.
    pub unacknowledged: u64,
    /// Bytes that we have not read.
    pub unread: u64,
}

impl Socket {
    /// Asks the kernel about `fd`: three system calls of 0.3 µs. `None`: not TCP.
    fn ask(fd: RawFd) -> Option<Self> {
        Some(Socket {
            info: kernel::info(fd)?,
            unacknowledged: kernel::unacknowledged(fd),
            unread: kernel::unread(fd),
        })
    }

    /// Whether the peer's window is full. It acknowledges what it gets then, so its window shows it, not the bytes in
    /// flight: those are many where the network is slow.
    fn is_shut(&self) -> bool {
        // A sender does not fill the last part of a window by small segments (RFC 9293 §3.8.6.2.1).
        self.info.window < self.info.unsent.min(SEGMENT)
    }

    /// Returns why bytes wait that the peer was sent, or would be.
    fn how(&self) -> Why {
        // A peer that does not read acknowledges what it got. Of a peer that is gone, one segment is sent again and
        // again, and the rest waits.
        let in_flight = self.unacknowledged.saturating_sub(self.info.unsent);
        match in_flight > 0 && self.info.silent >= UNACKNOWLEDGED {
            true => Why::Unacknowledged,
            false if self.is_shut() => Why::NotReading,
            false => Why::Network,
        }
    }

    /// Returns why the peer of this socket makes the flow wait, and for how long at least.
    fn stall(&self, silent: Duration) -> Option<(Duration, Why)> {
        let unheard = self.info.silent.min(silent);
        if self.info.unsent > 0 {
            return Some((silent, self.how()));
        }
        let ages = self.unacknowledged > 0 && unheard >= UNACKNOWLEDGED;
        ages.then_some((unheard, Why::Unacknowledged))
    }
}

/// Bytes that a sender usually waits to send together: a segment of Ethernet.
const SEGMENT: u64 = 1448;

/// All facts about a flow at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the relay noted.
    pub noted: Noted,
    /// The client's socket; `None` for a stream.
    pub client: Option<Socket>,
    /// The node's socket.
    pub node: Option<Socket>,
}

/// Who makes a flow wait, why, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who.
    pub who: Who,
    /// Why; `None` if nobody does.
    pub why: Option<Why>,
    /// For how long, at least; zero if nobody does.
    pub waited: Duration,
}

impl Facts {
    /// Collects the facts of the flow with that meter.
    pub fn of(meter: &Meter) -> Self {
        let (client, node) = meter.with_sockets(|client, node| {
            (client.and_then(Socket::ask), node.and_then(Socket::ask))
        });
        Facts {
            noted: meter.noted(Ticks::now()),
            client,
            node,
        }
    }

    /// Whether bytes can be read from a side that the relay would read at once. If they still can [`LATE`] later, and
    /// no byte has moved, the thread is busy.
    pub fn is_readable(&self) -> bool {
        let unread = |socket: Option<Socket>| socket.is_some_and(|s| s.unread > 0);
        let waits = self.noted.waits;
        (waits.has(Waits::READS_CLIENT) && unread(self.client))
            || (waits.has(Waits::READS_NODE) && unread(self.node))
    }

    /// Returns the bytes between node and client now: in the relay, unread from the node, and unacknowledged by the
    /// client.
    pub fn hidden(&self) -> u64 {
        let unread = self.node.map_or(0, |s| s.unread);
        let unacknowledged = self.client.map_or(0, |s| s.unacknowledged);
        self.noted.held + unread + unacknowledged
    }

    /// Judges. `before`: the facts [`LATE`] ago, if bytes could be read then.
    pub fn judge(&self, before: Option<&Facts>) -> Verdict {
        let stuck = |then: &Facts| then.is_readable() && then.noted.bytes == self.noted.bytes;
        if self.is_readable() && before.is_some_and(stuck) {
            let waited = self.noted.silent.min(self.since_received()).max(LATE);
            return Verdict {
                who: Who::Edge,
                why: Some(Why::Busy),
                waited,
            };
        }
        // If both make it wait, the longer wait is the cause of the other.
        match (self.client_stall(), self.node_stall()) {
            (None, None) => Verdict {
                who: Who::Idle,
                why: None,
                waited: Duration::ZERO,
            },
            (Some((waited, why)), node) if node.is_none_or(|(other, _)| other <= waited) => {
                Verdict {
                    who: Who::Client,
                    why: Some(why),
                    waited,
                }
            }
            (_, Some((waited, why))) | (Some((waited, why)), None) => Verdict {
                who: Who::Node,
                why: Some(why),
                waited,
            },
        }
    }

    /// Time since the newest byte that can be read has arrived.
    fn since_received(&self) -> Duration {
        let readable = |s: &&Option<Socket>| s.is_some_and(|s| s.unread > 0);
        let all = [self.client, self.node];
        let since = all.iter().filter(readable).flatten();
        since
            .map(|s| s.info.since_received)
            .max()
            .unwrap_or_default()
    }

    fn client_stall(&self) -> Option<(Duration, Why)> {
        let (waits, (waited, _)) = (self.noted.waits, self.noted.waited);
        if waits.has(Waits::REQUEST) {
            return Some((waited, Why::Request));
        }
        if waits.has(Waits::TO_CLIENT) {
            return Some((waited, self.client.map_or(Why::Stream, |s| s.how())));
        }
        // Of a stream the connection's bytes may be those of its siblings.
        self.client?.stall(self.noted.silent)
    }

    fn node_stall(&self) -> Option<(Duration, Why)> {
        let (waits, (_, waited)) = (self.noted.waits, self.noted.waited);
        if waits.has(Waits::CONNECT) {
            return Some((waited, Why::Connect));
        }
        if waits.has(Waits::TO_NODE) {
            return Some((waited, self.node.map_or(Why::Network, |s| s.how())));
        }
        // A node that does not even take the request has not got it.
        let stall = self.node.and_then(|s| s.stall(self.noted.silent));
        match waits.has(Waits::ANSWER) {
            true => Some(stall.unwrap_or((waited, Why::Answer))),
            false => stall,
        }
    }
}

#[cfg(test)]
mod tests;
