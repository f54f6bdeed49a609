//! Relays bytes between a client and a node: WebSocket after its upgrade, and layer 4.
//!
//! One loop, no queue: a byte is read from one side only when the other took the one before
//! ([`Direction`]). Nothing is allocated while nothing waits.
//! Source: Lightstreamer clustering §1; Diffusion load balancers, "Load balancer closing silent
//! connections" (there is no timer here).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::direction::{Broken, Direction, Pumped};
use super::handoff::Left;
use super::parting::{Turn, left, tell};
use super::side::Side;
use super::socket;

/// What the end of one direction means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// The end of either direction ends both (WebSocket: its closing handshake is over).
    Ends,
    /// The other direction goes on (layer 4).
    Kept,
}

/// Why a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client sent FIN.
    ClientClosed,
    /// The node sent FIN.
    NodeClosed,
    /// The client's connection broke.
    ClientFailed,
    /// The node's connection broke.
    NodeFailed,
    /// The kill signal came.
    Killed,
}

/// Result of a relay.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Why it ended.
    pub why: Why,
    /// Bytes passed to the node.
    pub to_node: u64,
    /// Bytes passed to the client.
    pub to_client: u64,
    /// Bytes on their way to the client that proxy and kernel held at the end.
    pub hidden: u64,
    /// Whether [`Relaying::first_passed`] has said so.
    pub answered: bool,
}

/// Limits of a relay.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What the end of one direction means.
    pub half_close: HalfClose,
    /// Most of the node's bytes that are with the client's kernel and not sent, or wait for it.
    pub unsent: usize,
    /// The node sends WebSocket frames: who is killed between two of them is told by a close frame.
    pub frames: bool,
}

/// Most read from a client at once: `max_hidden` is about the other direction. 4 KiB cost four times
/// the CPU, 64 KiB a fifth more (docs/decisions/0007-splice.md).
const READ_UP: usize = 32 * 1024;

/// Relays until one side ends or `kill` resolves, then closes both.
pub fn relay<K>(client: Left, node: Left, rules: Rules, kill: K) -> Relaying<K> {
    Relaying {
        kill,
        relay: Some(Relay::new(client, node, rules)),
        parting: None,
    }
}

/// A relay under way. All its state is in one piece: a message passes through few lines of memory.
pub struct Relaying<K> {
    kill: K,
    /// `None` when it is over.
    relay: Option<Relay>,
    /// Why it ends, and when it may.
    parting: Option<(Why, Turn)>,
}

impl<K: Future<Output = ()> + Unpin> Future for Relaying<K> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        let Some(relay) = &mut this.relay else {
            return Poll::Pending;
        };
        let (why, turn) = match &mut this.parting {
            Some(parting) => parting,
            none => none.insert(match Pin::new(&mut this.kill).poll(cx) {
                Poll::Ready(()) => (Why::Killed, relay.tell(cx)),
                Poll::Pending => (ready!(relay.poll(cx)), Turn::come()),
            }),
        };
        ready!(Pin::new(turn).poll(cx));
        let end = relay.end(cx, *why);
        this.relay = None;
        Poll::Ready(end)
    }
}

impl<K> Relaying<K> {
    /// Whether the node's first byte has passed since this was asked last; never of a WebSocket, whose 101 was
    /// its answer.
    pub fn first_passed(&mut self) -> bool {
        self.relay.as_mut().is_some_and(Relay::first_passed)
    }
}

/// Both sides, and what passes between them.
struct Relay {
    client: Side,
    node: Side,
    up: Direction,
    down: Direction,
    half_close: HalfClose,
    /// Whether the client, and the node, were told that the other one has ended.
    told: (bool, bool),
    /// The side that ended first.
    first: Option<Why>,
    /// Whether the node is known to have said something.
    answered: bool,
}

impl Relay {
    fn new((client, ahead): Left, (node, begun): Left, rules: Rules) -> Self {
        let mut down = Direction::new(begun, true, rules.unsent);
        down.follow_frames(rules.frames);
        Relay {
            client,
            node,
            up: Direction::new(ahead, false, READ_UP),
            down,
            half_close: rules.half_close,
            told: (false, false),
            first: None,
            answered: rules.frames,
        }
    }

    fn first_passed(&mut self) -> bool {
        let is_first = !self.answered && self.down.passed() > 0;
        self.answered |= is_first;
        is_first
    }

    /// Moves what can be moved; ready when the relay is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Why> {
        // Down first: what the node has already said reaches the client before either end does.
        let (client, node) = (&mut self.client, &mut self.node);
        let down_end = pass(&mut self.down, cx, node, client, &mut self.told.0);
        let up_end = pass(&mut self.up, cx, client, node, &mut self.told.1);
        self.first = self.first.or(match (&down_end, &up_end) {
            (Poll::Ready(Ok(())), _) => Some(Why::NodeClosed),
            (_, Poll::Ready(Ok(()))) => Some(Why::ClientClosed),
            _ => None,
        });
        verdict(down_end, up_end, self.half_close)
    }

    /// Tells a client that is cut, by a close frame if it understands one now.
    fn tell(&mut self, cx: &mut Context<'_>) -> Turn {
        let goodbye = self.down.held() == 0 && self.down.is_between_frames();
        tell(cx, &mut self.client, goodbye, false)
    }

    /// Settles how both sides close, and says how it went: an orderly end where the flow ended in order, RST
    /// where it did not, so that the other end does not take a cut stream for a complete one.
    fn end(&mut self, cx: &mut Context<'_>, why: Why) -> End {
        // Where both closed in order, the reason is who did so first.
        let why = match why {
            Why::NodeClosed => self.first.unwrap_or(why),
            _ => why,
        };
        let (client, node) = (&mut self.client, &mut self.node);
        let in_kernel = match why {
            Why::Killed => left(client),
            _ => client.tcp().unacknowledged(),
        };
        let hidden = self.down.held() as u64 + in_kernel + socket::unread(node.tcp().fd());
        match why {
            // What waits for a dead node must not be sent to it for minutes by the kernel.
            Why::Killed => node.tcp().reset_on_close_if_unacknowledged(),
            Why::NodeFailed => client.tcp().reset_on_close(),
            Why::ClientFailed => node.tcp().reset_on_close(),
            Why::ClientClosed | Why::NodeClosed => {
                // Once: a peer that does not read must not hold this task.
                for side in [client, node] {
                    let _ = Pin::new(side).poll_shutdown(cx);
                }
            }
        }
        End {
            why,
            to_node: self.up.passed(),
            to_client: self.down.passed(),
            hidden,
            answered: self.answered,
        }
    }
}

/// Moves what can be moved; `Ready(Ok)`: the source ended and the sink was told so.
fn pass(
    from: &mut Direction,
    cx: &mut Context<'_>,
    source: &mut Side,
    sink: &mut Side,
    told: &mut bool,
) -> Pumped {
    ready!(from.pump(cx, source, sink))?;
    // Once: asked again, OpenSSL waits for the peer's close_notify and fails on the data before it.
    if !*told {
        // The peer's error here only says that it is gone already.
        let _ = ready!(Pin::new(sink).poll_shutdown(cx));
        *told = true;
    }
    Poll::Ready(Ok(()))
}

fn verdict(down: Pumped, up: Pumped, half_close: HalfClose) -> Poll<Why> {
    let why = match (down, up) {
        // Nothing is framed here, so nothing breaks by its framing.
        (Poll::Ready(Err(Broken::Source | Broken::Framing(_))), _)
        | (_, Poll::Ready(Err(Broken::Sink | Broken::Framing(_)))) => Why::NodeFailed,
        (Poll::Ready(Err(Broken::Sink)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
            Why::ClientFailed
        }
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Why::NodeClosed,
        (Poll::Ready(Ok(())), Poll::Pending) if half_close == HalfClose::Ends => Why::NodeClosed,
        (Poll::Pending, Poll::Ready(Ok(()))) if half_close == HalfClose::Ends => Why::ClientClosed,
        _ => return Poll::Pending,
    };
    Poll::Ready(why)
}

#[cfg(test)]
mod tests;
