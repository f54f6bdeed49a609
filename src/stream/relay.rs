//! Relays bytes between a client and a node: a WebSocket, a layer-4 flow, or one request's body and its
//! answer.
//!
//! In: two sides, a [`Direction`] for each way. Out: the same data, at once, framed anew where the heads differ; and
//! the reason of the end. Nothing more is read from a side until the other side has taken what was read before: into
//! its socket, or, of an HTTP/2 stream, into the output buffer of its connection (one frame of 16 KiB). Two things are
//! read ahead: up to 16 KiB of an HTTP/1 client's next requests, and up to 64 KiB of a body by an HTTP/2 connection,
//! outside the relay. The relay has no timer, and a silent one allocates nothing. After a whole request and a whole
//! answer the sockets can carry the next exchange, unless a close ended the answer.
//! Source: Lightstreamer clustering §1; Diffusion load balancers, "Load balancer closing silent connections",
//! "Reuse TCP connection"; RFC 9112 §6, §9.3.2, §9.5.

mod close;
mod ends;
mod exchange;
mod measure;
mod read_ahead;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use self::read_ahead::ReadAhead;
use super::direction::{Direction, DirectionError, Pumped};
use super::graceful_close::{CloseTurn, notify};
use super::meter::{Lost, Measured};
use super::side::Side;
use crate::observe::end_reason::EndReason;

pub use self::read_ahead::{MAX_READ_AHEAD, watch};

/// The kind of flow, which decides what the end of one direction means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Layer 4: the end of one direction is passed on; the other direction goes on.
    Layer4,
    /// WebSocket: the end of either direction ends both, except that over HTTP/2 a client may end its half
    /// and still read.
    WebSocket,
    /// A request and its answer. Up to 16 KiB that the client sends after its request are kept.
    Exchange {
        /// No framing shows the client a missing end: the answer ends with its connection, or its HTTP/2 stream.
        by_close: bool,
        /// The node ends the answer by closing. If the node fails, the client gets a reset.
        ends_by_node: bool,
        /// The relay ends when the answer is whole; the rest of the request is not sent.
        leaves_request: bool,
    },
}

/// Limits of a relay.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Most bytes from the node that wait here and, unsent, in our socket to the client, together: a quarter of
    /// `max_hidden`, 4 KiB to 1 MiB (8 KiB by default). Bulk raises it.
    pub unsent: usize,
    /// Whether a fast flow may offer its node a window as large as the client's TCP window plus the small one.
    pub bulk: bool,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Why. `Done`: the answer is whole, and the request too or left, and [`Relay::into_sides`] returns the sockets.
    pub reason: EndReason,
    /// Bytes of the request's body that the node took; of a tunnel, all bytes.
    pub to_node: u64,
    /// Bytes that the client took; over HTTP/1 with the head of the answer.
    pub to_client: u64,
    /// Bytes that wait here, unread in the node's socket, or unacknowledged in the client's; 0 for `Done`.
    pub hidden: u64,
    /// The peer that was lost, if one was: reset, timed out or found dead.
    pub lost: Option<Lost>,
    /// Whether [`Relaying::first_passed`] has reported the node's first byte; always true except at layer 4.
    pub answered: bool,
}

/// Most bytes of one read from a client. `max_hidden` does not apply here. Reads of 4 KiB cost four times the CPU,
/// reads of 64 KiB a fifth more (docs/decisions/0007-splice.md).
const READ_UP: usize = 32 * 1024;

/// A running relay. Its state is in one piece, so that a message touches few cache lines.
pub struct Relaying<K> {
    kill: K,
    /// `None` once the relay is over.
    relay: Option<Relay>,
    /// Why the relay ends, whether it was killed, and the wait until this thread lets it close.
    closing: Option<(EndReason, bool, CloseTurn)>,
}

impl<K: Future<Output = EndReason> + Unpin> Relaying<K> {
    /// Relays until the flow is over as its [`Kind`] says, or `kill` resolves; then closes both sides.
    pub fn new(relay: Relay, kill: K) -> Self {
        Relaying {
            kill,
            relay: Some(relay),
            closing: None,
        }
    }

    /// Returns what ends the relay from outside.
    pub fn kill(&self) -> &K {
        &self.kill
    }

    /// Whether the node's first byte has passed; true only once. Layer 4 only: the answer of a WebSocket was its
    /// 101.
    pub fn first_passed(&mut self) -> bool {
        self.relay.as_mut().is_some_and(Relay::first_passed)
    }
}

impl<K: Future<Output = EndReason> + Unpin> Future for Relaying<K> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        let Some(relay) = &mut this.relay else {
            return Poll::Pending;
        };
        let (reason, killed, turn) = match &mut this.closing {
            Some(closing) => closing,
            none => none.insert(match Pin::new(&mut this.kill).poll(cx) {
                Poll::Ready(reason) => (reason, true, relay.notify(cx)),
                Poll::Pending => (ready!(relay.poll(cx)), false, CloseTurn::come()),
            }),
        };
        ready!(Pin::new(turn).poll(cx));
        let end = relay.end(cx, *reason, *killed);
        this.relay = None;
        Poll::Ready(end)
    }
}

/// Which peers are watched for their end without a read, because no direction reads from them (see `ends`).
#[derive(Clone, Copy, Default)]
struct Watched {
    client: bool,
    node: bool,
    /// The node has sent its FIN: what the relay has not read of it is complete.
    node_is_done: bool,
}

/// Both sides and the two directions between them.
pub struct Relay {
    /// First, so that it is dropped before the sides: nobody may ask a closed socket.
    measured: Option<Measured>,
    client: Side,
    node: Side,
    up: Direction,
    down: Direction,
    kind: Kind,
    /// Whether the client was sent the node's end, and whether the node was sent the client's end.
    told: (bool, bool),
    watched: Watched,
    /// The reason for the side that ended first.
    first: Option<EndReason>,
    /// The node's first byte was reported; true from the start except at layer 4.
    answered: bool,
    /// The node has the whole request, or takes no more of it.
    request_over: bool,
    /// The node takes no more of the request.
    request_cut: bool,
    /// Bytes of the request's head, which do not count as body.
    head_bytes: u32,
    ahead: ReadAhead,
}

impl Relay {
    /// Creates the relay of a layer-4 flow.
    pub fn layer4(client: Side, node: Side, rules: Rules) -> Self {
        let mut this = Relay::of(client, node, rules, Kind::Layer4);
        this.answered = false;
        this
    }

    fn of(client: Side, node: Side, rules: Rules, kind: Kind) -> Self {
        Relay {
            measured: None,
            up: Direction::new(false, READ_UP, false),
            // No bulk for a stream: its window is not that of its socket.
            down: Direction::new(true, rules.unsent, rules.bulk && !client.is_stream()),
            client,
            node,
            kind,
            told: (false, false),
            watched: Watched::default(),
            first: None,
            answered: true,
            request_over: false,
            request_cut: false,
            head_bytes: 0,
            ahead: ReadAhead::default(),
        }
    }

    /// Relays an answer until a side ends too soon, `kill` resolves, or the exchange is over: the answer is whole, and
    /// so is the request unless its [`Kind`] leaves it. Only then the end is `Done`. [`Relay::into_sides`] says which
    /// sockets may be reused; otherwise both sides are ready to be dropped.
    pub async fn run(&mut self, mut kill: impl Future<Output = EndReason> + Unpin) -> End {
        let (reason, killed) = std::future::poll_fn(|cx| {
            if let Poll::Ready(reason) = Pin::new(&mut kill).poll(cx) {
                return Poll::Ready((reason, true));
            }
            self.poll(cx).map(|reason| (reason, false))
        })
        .await;
        let mut lost = 0;
        if killed {
            // Read before the reset, which clears the count.
            if self.looks_whole() {
                lost = self.client.unacknowledged();
            }
            std::future::poll_fn(|cx| Poll::Ready(self.notify(cx)))
                .await
                .await;
        }
        let mut end = std::future::poll_fn(|cx| Poll::Ready(self.end(cx, reason, killed))).await;
        end.hidden += lost;
        end
    }

    fn first_passed(&mut self) -> bool {
        let is_first = !self.answered && self.down.passed() > 0;
        self.answered |= is_first;
        is_first
    }

    /// Moves bytes both ways, and notes what moved; ready when the relay is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let polled = self.poll_sides(cx);
        if polled.is_pending() {
            self.note();
        }
        polled
    }

    fn poll_sides(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        // Down first: the client gets the bytes that the node has sent before either side's end counts.
        match self.kind {
            Kind::Layer4 | Kind::WebSocket => self.poll_tunnel(cx),
            Kind::Exchange { leaves_request, .. } => {
                let down = self.down.pump(cx, &mut self.node, &mut self.client);
                if let Poll::Ready(Ok(())) = down {
                    self.end_answer();
                }
                match down {
                    Poll::Ready(Err(e)) => return Poll::Ready(down_failed(e)),
                    Poll::Ready(Ok(())) if self.request_over || leaves_request => {
                        return Poll::Ready(EndReason::Done);
                    }
                    _ => {}
                }
                let up = self.poll_up(cx);
                match (down.is_ready(), up) {
                    (true, _) if self.request_over => Poll::Ready(EndReason::Done),
                    (is_whole, Poll::Pending) => {
                        self.poll_node_end(cx, is_whole || self.down.waits_for_source())
                    }
                    (_, ended) => ended,
                }
            }
        }
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let (client, node) = (&mut self.client, &mut self.node);
        let down_end = pass(&mut self.down, cx, node, client, &mut self.told.0);
        let up_end = pass(&mut self.up, cx, client, node, &mut self.told.1);
        self.first = self.first.or(match (&down_end, &up_end) {
            (Poll::Ready(Ok(())), _) => Some(EndReason::NodeClosed),
            (_, Poll::Ready(Ok(()))) => Some(EndReason::ClientClosed),
            _ => None,
        });
        // A client that has ended its half of a stream may still read: Chromium ends it with its close frame
        // and waits for the node's (RFC 8441 §5). Reads no longer show its reset.
        let half_closed = down_end.is_pending() && matches!(up_end, Poll::Ready(Ok(())));
        if half_closed && self.client.is_stream() {
            return self.poll_ends(cx);
        }
        match verdict(down_end, up_end, self.kind) {
            Poll::Pending => self.poll_ends(cx),
            over => over,
        }
    }

    /// Tells a killed client the end: RST if an orderly close would make the answer look whole; else a close frame
    /// if its WebSocket is between frames; else FIN. An HTTP/2 stream gets the close frame, or is reset.
    fn notify(&mut self, cx: &mut Context<'_>) -> CloseTurn {
        let goodbye = self.down.held() == 0 && self.down.is_between_frames();
        let reset = self.looks_whole();
        notify(cx, &mut self.client, goodbye, reset)
    }

    fn ends_by_node(&self) -> bool {
        use Kind::Exchange;
        matches!(self.kind, Exchange { ends_by_node, .. } if ends_by_node)
    }

    /// Whether an orderly close would make a cut answer look complete.
    fn looks_whole(&self) -> bool {
        matches!(self.kind, Kind::Exchange { by_close: true, .. })
    }
}

/// Moves bytes of one direction. `Ready(Ok)`: the source ended, and the sink was sent that end.
fn pass(
    from: &mut Direction,
    cx: &mut Context<'_>,
    source: &mut Side,
    sink: &mut Side,
    told: &mut bool,
) -> Pumped {
    ready!(from.pump(cx, source, sink))?;
    // Only once: a second call makes OpenSSL wait for close_notify and fail on the data before it.
    if !*told {
        // An error here only means that the peer is already gone.
        let _ = ready!(Pin::new(sink).poll_shutdown(cx));
        *told = true;
    }
    Poll::Ready(Ok(()))
}

fn down_failed(e: DirectionError) -> EndReason {
    match e {
        DirectionError::Source | DirectionError::Ended => EndReason::NodeFailed,
        DirectionError::Sink => EndReason::ClientFailed,
        DirectionError::Framing(_) => EndReason::BadAnswer,
    }
}

fn verdict(down: Pumped, up: Pumped, kind: Kind) -> Poll<EndReason> {
    use DirectionError::{Ended, Framing, Sink, Source};
    let ends = kind == Kind::WebSocket;
    let reason = match (down, up) {
        // Tunnels have no framing, so a framing error cannot occur.
        (Poll::Ready(Err(Source | Ended | Framing(_))), _)
        | (_, Poll::Ready(Err(Sink | Framing(_)))) => EndReason::NodeFailed,
        (Poll::Ready(Err(Sink)), _) | (_, Poll::Ready(Err(Source | Ended))) => {
            EndReason::ClientFailed
        }
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => EndReason::NodeClosed,
        (Poll::Ready(Ok(())), Poll::Pending) if ends => EndReason::NodeClosed,
        (Poll::Pending, Poll::Ready(Ok(()))) if ends => EndReason::ClientClosed,
        _ => return Poll::Pending,
    };
    Poll::Ready(reason)
}

#[cfg(test)]
mod tests;
