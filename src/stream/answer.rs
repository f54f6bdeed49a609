//! Relays the body of one answer from a node to a client, to its end and not a byte beyond.
//!
//! In: both sockets as they left Pingora, and how the body is framed. Out: both sockets again where
//! the answer is whole, so that each can carry the next one; else why it is not. Meanwhile the
//! client's bytes are kept for its next request, up to a limit, and its end is the end of all.
//! Source: RFC 9112 §6, §7.1, §9.3.2, §9.5; Lightstreamer clustering §1.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::direction::{Broken, Direction};
use super::framing::Framing;
use super::handoff::{Answer, Left, Wrap};
use super::parting::{left, tell};
use super::side::Side;
use super::socket;

/// Limits of a relayed answer.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Most of the node's bytes that are with the client's kernel and not sent, or wait for it.
    pub unsent: usize,
    /// Most bytes kept of the client's next requests.
    pub ahead: usize,
}

/// Why an answer is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client sent FIN.
    ClientClosed,
    /// The client's connection broke.
    ClientFailed,
    /// The node's connection broke, or closed within the answer.
    NodeFailed,
    /// The node's answer is not legally framed.
    BadAnswer,
    /// The kill signal came.
    Killed,
}

/// What became of an answer.
pub struct Relayed {
    /// Bytes passed to the client, with those that frame them.
    pub to_client: u64,
    /// The sockets, or why it is not whole.
    pub end: Result<Whole, Uncompleted>,
}

/// The sockets of an answer that is whole.
pub struct Whole {
    /// The client's, with what it sent ahead.
    pub client: Left,
    /// Whether the client was told that its connection goes on.
    pub keep_client: bool,
    /// The node's; `None`: it cannot carry another request.
    pub node: Option<Side>,
}

/// An answer that is not whole. Both connections are closed; the client does not take it for whole.
#[derive(Clone, Copy, Debug)]
pub struct Uncompleted {
    /// Why.
    pub why: Cut,
    /// Bytes on their way to the client that proxy and kernel held at the end.
    pub hidden: u64,
}

/// Both sides, and what passes between them.
pub struct Relay {
    client: Side,
    node: Side,
    down: Result<Direction, Broken>,
    ahead: Ahead,
    /// The client sees the end of the answer by that of its connection only.
    by_close: bool,
    keep_node: bool,
    keep_client: bool,
}

impl Relay {
    /// Of `answer`, between a client and a node. Boxed: a future keeps its arguments beside what is made
    /// of them, for as long as the flow is silent.
    pub fn new(
        (client, ahead): Left,
        (node, begun): Left,
        answer: Answer,
        rules: Rules,
    ) -> Box<Self> {
        let by_close = answer.framing == Framing::UntilClose && answer.wrap == Wrap::AsIs;
        Box::new(Relay {
            client,
            node,
            down: Direction::message(&begun, answer.framing, answer.wrap, rules.unsent),
            ahead: Ahead::new(ahead, rules.ahead),
            by_close,
            keep_node: answer.keep_node,
            keep_client: answer.keep_client,
        })
    }

    /// Relays until the answer is whole, a side ends or `kill` resolves.
    pub async fn run(mut self: Box<Self>, mut kill: impl Future<Output = ()> + Unpin) -> Relayed {
        let ended = poll_fn(|cx| {
            if Pin::new(&mut kill).poll(cx).is_ready() {
                return Poll::Ready(Err(Cut::Killed));
            }
            self.poll(cx)
        })
        .await;
        let to_client = self.down.as_ref().map_or(0, Direction::passed);
        let end = match ended {
            Ok(()) => {
                let beyond = self.down.as_ref().is_ok_and(Direction::went_beyond);
                Ok(Whole {
                    client: (self.client, self.ahead.kept),
                    keep_client: self.keep_client,
                    node: (self.keep_node && !beyond).then_some(self.node),
                })
            }
            Err(why) => {
                let held = self.down.as_ref().map_or(0, Direction::held) as u64;
                let hidden = held + Box::pin(self.part(why)).await;
                Err(Uncompleted { why, hidden })
            }
        };
        Relayed { to_client, end }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let down = match &mut self.down {
            Ok(down) => down,
            Err(broken) => return Poll::Ready(Err(why(*broken))),
        };
        // Down first: what the node has already said reaches the client before the end of either.
        if let Poll::Ready(end) = down.pump(cx, &mut self.node, &mut self.client) {
            return Poll::Ready(end.map_err(why));
        }
        self.ahead.watch(cx, &mut self.client).map(Err)
    }

    /// Settles how the sockets close. A client that knows the end of its answer by that of its
    /// connection only must see a reset; another one takes what is under way before it sees the cut.
    /// Returns the bytes that the kernel had for the client.
    async fn part(&mut self, why: Cut) -> u64 {
        let on_their_way = if why == Cut::Killed {
            let (client, reset) = (&mut self.client, self.by_close);
            // A reset socket does not know any more.
            let lost = if reset {
                client.tcp().unacknowledged()
            } else {
                0
            };
            let turn = poll_fn(|cx| Poll::Ready(tell(cx, client, false, reset)));
            turn.await.await;
            lost + left(&self.client)
        } else {
            self.client.tcp().unacknowledged()
        };
        match why {
            Cut::ClientFailed => self.node.tcp().reset_on_close(),
            Cut::NodeFailed | Cut::BadAnswer if self.by_close => self.client.tcp().reset_on_close(),
            Cut::ClientClosed | Cut::NodeFailed | Cut::BadAnswer | Cut::Killed => {}
        }
        on_their_way + socket::unread(self.node.tcp().fd())
    }
}

fn why(broken: Broken) -> Cut {
    match broken {
        Broken::Source => Cut::NodeFailed,
        Broken::Sink => Cut::ClientFailed,
        Broken::Framing(_) => Cut::BadAnswer,
    }
}

/// What a client sends while its answer is under way.
struct Ahead {
    kept: Vec<u8>,
    limit: usize,
    /// The socket had nothing when it was asked last.
    dry: bool,
}

impl Ahead {
    fn new(kept: Vec<u8>, limit: usize) -> Self {
        Ahead {
            // An empty one may still have the 4 KiB in which the request's head was read.
            kept: if kept.is_empty() { Vec::new() } else { kept },
            limit,
            dry: false,
        }
    }

    /// Keeps what comes; ready when the client has ended.
    fn watch(&mut self, cx: &mut Context<'_>, client: &mut Side) -> Poll<Cut> {
        while self.kept.len() < self.limit {
            if self.dry && ready!(client.tcp().poll_readable(cx)).is_err() {
                return Poll::Ready(Cut::ClientFailed);
            }
            let room = self.limit - self.kept.len();
            let read = client.poll_more(cx, &mut self.kept, room);
            self.dry = read.is_pending();
            match ready!(read) {
                Err(_) => return Poll::Ready(Cut::ClientFailed),
                Ok(0) => return Poll::Ready(Cut::ClientClosed),
                Ok(_) => {}
            }
        }
        client.tcp().poll_ended(cx).map(|()| Cut::ClientClosed)
    }
}

#[cfg(test)]
mod tests;
