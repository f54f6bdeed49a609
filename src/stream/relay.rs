//! Relays bytes between a client and a node: WebSocket after its upgrade, and layer 4.
//!
//! One loop, no queue: a byte is read from one side only when the other took the one before, and
//! the node only when the client's socket has sent all. Nothing is allocated while nothing waits.
//! Source: Lightstreamer clustering §1; Diffusion load balancers, "Load balancer closing silent
//! connections" (there is no timer here).

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

mod bulk;

use self::bulk::Bulk;
use super::frames::{Frames, RESTART};
use super::handoff::Left;
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
}

/// Limits of a relay.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What the end of one direction means.
    pub half_close: HalfClose,
    /// Most bytes read from the node at once, 1 KiB to 64 KiB.
    pub read: usize,
    /// The node sends WebSocket frames: who is killed between two of them is told by a close frame.
    pub frames: bool,
}

/// Relays until one side ends or `kill` resolves, then closes both.
pub async fn relay(client: Left, node: Left, rules: Rules, kill: impl Future<Output = ()>) -> End {
    let ((mut client, from_client), (mut node, from_node)) = (client, node);
    let mut up = Direction::new(from_client, false, READ_UP);
    let mut down = Direction::new(from_node, true, rules.read);
    down.follow(rules.frames);
    let mut kill = pin!(kill);
    let mut first = None;
    let why = std::future::poll_fn(|cx| {
        if kill.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Why::Killed);
        }
        // Down first: what the node has already said reaches the client before either end does.
        let down_end = down.pump(cx, &mut node, &mut client);
        let up_end = up.pump(cx, &mut client, &mut node);
        first = first.or(match (&down_end, &up_end) {
            (Poll::Ready(Ok(())), _) => Some(Why::NodeClosed),
            (_, Poll::Ready(Ok(()))) => Some(Why::ClientClosed),
            _ => None,
        });
        verdict(down_end, up_end, rules.half_close)
    })
    .await;
    // Where both closed in order, the reason is who did so first.
    let why = if why == Why::NodeClosed {
        first.unwrap_or(why)
    } else {
        why
    };
    let held = (down.waiting.len() - down.offset + down.bulk.held()) as u64;
    let hidden = held + socket::unread(node.tcp().fd()) + socket::unacknowledged(client.tcp().fd());
    let goodbye = why == Why::Killed && held == 0 && down.frames.is_some_and(|f| f.between());
    finish(why, goodbye, client, node).await;
    End {
        why,
        to_node: up.passed,
        to_client: down.passed,
        hidden,
    }
}

type Pumped = Poll<Result<(), Broken>>;

/// Which socket of a direction broke.
enum Broken {
    Source,
    Sink,
}

fn verdict(down: Pumped, up: Pumped, half_close: HalfClose) -> Poll<Why> {
    let why = match (down, up) {
        (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
            Why::NodeFailed
        }
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

/// Closes both sides: an orderly end where the flow ended in order, RST where it did not, so that
/// the other end does not take a cut stream for a complete one. `goodbye`: the client understands a
/// close frame now.
async fn finish(why: Why, goodbye: bool, mut client: Side, mut node: Side) {
    use tokio::io::AsyncWriteExt;
    match why {
        Why::Killed => {
            // Who looks on is told first: the client may be back at once.
            let _node = node.untapped();
            if !client.tcp().reset_on_close_if_stalled() && goodbye {
                let last = async {
                    client.write_all(&RESTART).await?;
                    client.shutdown().await
                };
                once(last).await;
            }
            // All killed clients of this thread first, their nodes' sides after them.
            drop(client);
            tokio::task::yield_now().await;
        }
        Why::NodeFailed => client.tcp().reset_on_close(),
        Why::ClientFailed => node.tcp().reset_on_close(),
        Why::ClientClosed | Why::NodeClosed => {
            once(async { tokio::join!(client.shutdown(), node.shutdown()) }).await;
        }
    }
}

/// Polls once: a peer that does not read must not hold this task.
async fn once<T>(last: impl Future<Output = T>) {
    let mut last = pin!(last);
    std::future::poll_fn(|cx| {
        let _ = last.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

thread_local! {
    /// One read buffer per thread: a relay holds memory only for bytes that wait.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_READ]);
}

/// Most read from a client at once: `max_hidden` is about the other direction. 4 KiB cost four times
/// the CPU, 64 KiB a fifth more (docs/decisions/0007-splice.md).
const READ_UP: usize = 32 * 1024;
/// Size of the thread's read buffer.
const MAX_READ: usize = 64 * 1024;

/// One direction of a relay.
struct Direction {
    waiting: Vec<u8>,
    offset: usize,
    /// The source is read only when the sink's kernel has sent everything.
    on_demand: bool,
    read: usize,
    ended: bool,
    passed: u64,
    frames: Option<Frames>,
    bulk: Bulk,
}

impl Direction {
    fn new(waiting: Vec<u8>, on_demand: bool, read: usize) -> Self {
        Direction {
            // An empty one may still have the 4 KiB in which the request's head was read.
            waiting: if waiting.is_empty() {
                Vec::new()
            } else {
                waiting
            },
            offset: 0,
            on_demand,
            read: read.min(MAX_READ),
            ended: false,
            passed: 0,
            frames: None,
            bulk: Bulk::default(),
        }
    }

    /// Follows the frames in what passes, from what waits already.
    fn follow(&mut self, frames: bool) {
        if frames {
            let mut following = Frames::default();
            following.pass(&self.waiting);
            self.frames = Some(following);
        }
    }

    /// Moves what can be moved. `Ready(Ok)`: the source ended and the sink was told so.
    fn pump(&mut self, cx: &mut Context<'_>, source: &mut Side, sink: &mut Side) -> Pumped {
        loop {
            ready!(self.pass_waiting(cx, sink))?;
            if self.ended {
                // The peer's error here only says that it is gone already.
                let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                return Poll::Ready(Ok(()));
            }
            // Cached readiness costs no system call; without it each wake-up would ask the sink first.
            ready!(source.poll_readable(cx)).map_err(|_| Broken::Source)?;
            if self.on_demand {
                ready!(sink.tcp().poll_all_sent(cx)).map_err(|_| Broken::Sink)?;
            }
            ready!(self.read_and_pass(cx, source, sink))?;
        }
    }

    fn pass_waiting(&mut self, cx: &mut Context<'_>, sink: &mut Side) -> Pumped {
        while self.bulk.held() > 0 {
            let n = ready!(self.bulk.poll_drain(cx, sink.tcp())).map_err(|_| Broken::Sink)?;
            self.passed += n as u64;
        }
        while self.offset < self.waiting.len() {
            let n = ready!(Pin::new(&mut *sink).poll_write(cx, &self.waiting[self.offset..]))
                .map_err(|_| Broken::Sink)?;
            self.offset += n;
            self.passed += n as u64;
        }
        if !self.waiting.is_empty() {
            self.waiting = Vec::new();
            self.offset = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn read_and_pass(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Side,
        sink: &mut Side,
    ) -> Pumped {
        if let Some(filled) = self.bulk.poll_fill(cx, source, sink, self.read) {
            let n = ready!(filled).map_err(|_| Broken::Source)?;
            self.ended = n == 0;
            return Poll::Ready(Ok(()));
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut buf = ReadBuf::new(&mut buffer[..self.read]);
            ready!(Pin::new(source).poll_read(cx, &mut buf)).map_err(|_| Broken::Source)?;
            let got = buf.filled();
            if got.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            match &mut self.frames {
                Some(frames) => frames.pass(got),
                // Frames can only be followed in bytes that are copied.
                None => self.bulk.saw(got.len()),
            }
            let taken = match Pin::new(sink).poll_write(cx, got) {
                Poll::Ready(r) => r.map_err(|_: io::Error| Broken::Sink)?,
                Poll::Pending => 0,
            };
            self.passed += taken as u64;
            if taken < got.len() {
                // Under TLS the same bytes must be offered again, which `waiting` does.
                self.waiting = got[taken..].to_vec();
                self.offset = 0;
            }
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
mod tests;
