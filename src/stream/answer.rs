//! Relays the body of one answer from a node to a client, to its end and not a byte beyond.
//!
//! In: both sockets as they left Pingora, and how the body is framed. Out: both sockets again where
//! the answer is whole, so that each can carry the next one; else why it is not. Meanwhile the
//! client's bytes are kept for its next request, up to a limit, and its end is the end of all.
//! Source: RFC 9112 §6, §7.1, §9.3.2, §9.5; Lightstreamer clustering §1.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::direction::{Broken, Direction};
use super::framing::Framing;
use super::handoff::{Answer, Left, Wrap};
use super::side::Side;
use super::socket;

/// Limits of a relayed answer.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Most bytes read at once, 1 KiB to 64 KiB.
    pub read: usize,
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

/// Relays `answer` until it is whole, a side ends or `kill` resolves.
pub async fn relay(
    (client, node): (Left, Left),
    answer: &Answer,
    rules: Rules,
    kill: impl Future<Output = ()>,
) -> Relayed {
    let ((mut client, ahead), (mut node, begun)) = (client, node);
    let mut ahead = Ahead::new(ahead, rules.ahead);
    let mut kill = pin!(kill);
    let down = Direction::message(&begun, answer.framing.clone(), answer.wrap, rules.read);
    drop(begun);
    let mut down = match down {
        Ok(down) => down,
        Err(_) => return cut(Cut::BadAnswer, answer, 0, (&client, &node), 0),
    };
    let ended = std::future::poll_fn(|cx| {
        if kill.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Cut::Killed));
        }
        // Down first: what the node has already said reaches the client before the end of either.
        if let Poll::Ready(end) = down.pump(cx, &mut node, &mut client) {
            return Poll::Ready(end.map_err(why));
        }
        ahead.watch(cx, &mut client).map(Err)
    })
    .await;
    match ended {
        Err(why) => {
            let cut = cut(why, answer, down.passed(), (&client, &node), down.held());
            // All killed clients of this thread first, their nodes' sides after them.
            drop(client);
            if why == Cut::Killed {
                tokio::task::yield_now().await;
            }
            cut
        }
        Ok(()) => Relayed {
            to_client: down.passed(),
            end: Ok(Whole {
                client: (client, ahead.kept),
                node: (answer.keep_node && !down.went_beyond()).then_some(node),
            }),
        },
    }
}

fn why(broken: Broken) -> Cut {
    match broken {
        Broken::Source => Cut::NodeFailed,
        Broken::Sink => Cut::ClientFailed,
        Broken::Framing(_) => Cut::BadAnswer,
    }
}

/// Settles how the sockets close. A client that knows the end of its answer by that of its
/// connection only must see a reset; another one takes what is under way before it sees the cut.
fn cut(why: Cut, answer: &Answer, to_client: u64, sockets: (&Side, &Side), held: usize) -> Relayed {
    let (client, node) = (sockets.0.tcp(), sockets.1.tcp());
    let by_close = answer.framing == Framing::UntilClose && answer.wrap == Wrap::AsIs;
    let hidden = held as u64 + socket::unread(node.fd()) + socket::unacknowledged(client.fd());
    match why {
        Cut::ClientClosed => {}
        Cut::ClientFailed => node.reset_on_close(),
        _ if by_close => client.reset_on_close(),
        Cut::Killed => {
            client.reset_on_close_if_stalled();
        }
        Cut::NodeFailed | Cut::BadAnswer => {}
    }
    Relayed {
        to_client,
        end: Err(Uncompleted { why, hidden }),
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
            let mut part = [0u8; 512];
            let mut buf = ReadBuf::new(&mut part);
            let read: Poll<io::Result<()>> = Pin::new(&mut *client).poll_read(cx, &mut buf);
            self.dry = read.is_pending();
            match ready!(read) {
                Err(_) => return Poll::Ready(Cut::ClientFailed),
                Ok(()) if buf.filled().is_empty() => return Poll::Ready(Cut::ClientClosed),
                Ok(()) => self.kept.extend_from_slice(buf.filled()),
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
