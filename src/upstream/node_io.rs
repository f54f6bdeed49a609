//! The node's socket as Pingora sees it: a stream that follows the framing of one answer.
//!
//! It knows where the answer ends, so the connection goes back to its client's [`Affinity`] by
//! itself (Pingora's pool never holds one, W4, W15), a 101 leaves with every byte behind it (W1), so
//! does an answer that is streamed ([`leaving`]), and one that is cut never looks complete (W6).
//! Source: RFC 9112 §6, §9; Diffusion load balancers, "Reuse TCP connection".

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::asked::Asked;
use super::gate::Bucket;
use super::response_head::{self, MAX_HEAD, ResponseHead};
use super::{Affinity, LiveFlow, Node, leaving};
use crate::config::units::Rate;
use crate::stream::framing::Framing;
use crate::stream::handoff::{Answer, Phase, Wrap};
use crate::stream::side::{MORE, Side};

/// One exchange on one upstream connection.
pub struct NodeIo {
    side: Option<Side>,
    node: Arc<Node>,
    flow: Arc<LiveFlow>,
    affinity: Arc<Affinity>,
    asked: Asked,
    /// Most bytes read at once.
    read: usize,
    stage: Stage,
    /// Bytes read but not given to Pingora: a head in the making, then what came behind it.
    kept: Vec<u8>,
    keep: bool,
    /// What is left of its interim answers, once there was one.
    interim: Option<Bucket>,
}

/// Interim answers (1xx) at once, and how fast more may follow: `102 Processing` as a sign of life goes
/// on for hours, a flood does not (D62).
const INTERIM_BURST: f64 = 100.0;
const INTERIM_RATE: Rate = Rate::a_second(1);

/// What came of asking a socket.
type Polled<T> = Poll<io::Result<T>>;

enum Stage {
    /// Collecting a head.
    Head,
    /// Giving Pingora the first `end` bytes of `kept`, of which `given` are gone.
    Giving {
        given: usize,
        end: usize,
        then: Next,
    },
    Body(Framing),
    /// The head of an answer that leaves was given: the body is not Pingora's, unless it stays.
    Leaving(Framing),
    /// The 101 was given: what comes now is not Pingora's.
    Inert,
    /// The socket has gone back to the client's affinity, or is useless.
    Over,
}

enum Next {
    Head,
    Body(Framing),
    Leaving(Framing),
    Inert,
}

impl NodeIo {
    /// Wraps a connected socket for one exchange.
    pub fn new(
        side: Side,
        node: Arc<Node>,
        flow: Arc<LiveFlow>,
        affinity: Arc<Affinity>,
        asked: Asked,
        read: usize,
    ) -> Self {
        NodeIo {
            side: Some(side),
            node,
            flow,
            affinity,
            asked,
            read,
            stage: Stage::Head,
            kept: Vec::new(),
            keep: false,
            interim: None,
        }
    }

    fn side(&mut self) -> io::Result<&mut Side> {
        self.side
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads from the socket into `kept`; at most one read.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(side) = &mut self.side else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let more = side.poll_more(cx, &mut self.kept, MORE);
        self.unless_evicted(cx, more)
    }

    /// What came of asking the socket, unless the flow was evicted; an eviction wakes who must wait.
    fn unless_evicted<T>(&self, cx: &mut Context<'_>, asked: Polled<T>) -> Polled<T> {
        if asked.is_pending() {
            self.flow.handoff.watch_node(cx.waker());
        }
        if self.flow.is_evicted() {
            return Poll::Ready(Err(evicted()));
        }
        asked
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.kept, b"\r\n\r\n") {
                self.stage = self.judge(end + 4)?;
                return Poll::Ready(Ok(()));
            }
            if self.kept.len() > MAX_HEAD {
                return Poll::Ready(Err(invalid(&self.flow, "head too long")));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Decides what a whole head of `end` bytes means.
    fn judge(&mut self, end: usize) -> io::Result<Stage> {
        let head = response_head::parse(&self.kept[..end], self.asked.head)
            .map_err(|fault| invalid(&self.flow, &format!("{fault:?}")))?;
        let then = match head.status {
            101 if self.flow.handoff.phase() == Phase::Asked => {
                self.flow.begin();
                Next::Inert
            }
            // A switch nobody asked for would tunnel the next requests past every check.
            101 => return Err(invalid(&self.flow, "101 without an upgrade")),
            100..=199 => self.judge_interim(Instant::now())?,
            _ => {
                self.flow.begin();
                self.keep = head.keep;
                self.body(head, end)
            }
        };
        Ok(Stage::Giving {
            given: 0,
            end,
            then,
        })
    }

    fn judge_interim(&mut self, now: Instant) -> io::Result<Next> {
        let full = || Bucket::with_burst(INTERIM_RATE, INTERIM_BURST, now);
        if self.interim.get_or_insert_with(full).take(now) {
            Ok(Next::Head)
        } else {
            Err(invalid(&self.flow, "too many interim answers"))
        }
    }

    /// Whether the body behind a head of `end` bytes is for Pingora or for the relay.
    fn body(&self, head: ResponseHead, end: usize) -> Next {
        if !self.asked.is_whole() || !leaving::may_leave(&head, &self.kept[end..]) {
            if self.kept.len() > end && !head.framing.is_done() {
                self.flow.handoff.body_is_at_hand();
            }
            return Next::Body(head.framing);
        }
        self.flow.handoff.offer(Answer {
            framing: head.framing.clone(),
            keep_node: head.keep,
            // Both are decided by the head as the client gets it.
            wrap: Wrap::AsIs,
            keep_client: false,
        });
        Next::Leaving(head.framing)
    }

    /// While the head is on its way to the client nothing is read; if it cannot leave, Pingora goes on.
    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let handoff = &self.flow.handoff;
        handoff.watch_node(cx.waker());
        match (&self.stage, handoff.phase()) {
            (Stage::Leaving(framing), Phase::Ordinary) => {
                self.stage = Stage::Body(framing.clone());
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let Stage::Giving { given, end, then } = &mut self.stage else {
            return;
        };
        let n = (*end - *given).min(buf.remaining());
        buf.put_slice(&self.kept[*given..*given + n]);
        *given += n;
        if given == end {
            self.kept.drain(..*end);
            self.stage = match std::mem::replace(then, Next::Head) {
                Next::Head => Stage::Head,
                Next::Body(framing) => Stage::Body(framing),
                Next::Leaving(framing) => Stage::Leaving(framing),
                Next::Inert => Stage::Inert,
            };
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Stage::Body(framing) = &self.stage else {
            return Poll::Ready(Ok(()));
        };
        let room = match framing {
            Framing::Length(n) => usize::try_from(*n).unwrap_or(usize::MAX),
            _ => usize::MAX,
        }
        .min(buf.remaining())
        .min(self.read);
        if !self.kept.is_empty() {
            let n = room.min(self.kept.len());
            let data: Vec<u8> = self.kept.drain(..n).collect();
            let used = self.advance(&data)?;
            buf.put_slice(&data[..used]);
            return Poll::Ready(Ok(()));
        }
        if !self.flow.handoff.may_read_node(cx.waker()) {
            return if self.flow.is_evicted() {
                Poll::Ready(Err(evicted()))
            } else {
                Poll::Pending
            };
        }
        let before = buf.filled().len();
        let mut part = buf.take(room);
        let read = Pin::new(self.side()?).poll_read(cx, &mut part);
        ready!(self.unless_evicted(cx, read))?;
        let got = part.filled().len();
        // SAFETY: `part` is a view of `buf` and has initialised its first `got` bytes.
        unsafe { buf.assume_init(got) };
        buf.advance(got);
        if got == 0 {
            return Poll::Ready(self.ended());
        }
        let used = self.advance(&buf.filled()[before..])?;
        buf.set_filled(before + used);
        Poll::Ready(Ok(()))
    }

    /// Follows the framing over `data`; returns how much of it is the answer's.
    fn advance(&mut self, data: &[u8]) -> io::Result<usize> {
        let Stage::Body(framing) = &mut self.stage else {
            return Ok(0);
        };
        let used = framing
            .advance(data)
            .map_err(|fault| invalid(&self.flow, &format!("{fault:?}")))?;
        if used < data.len() || (framing.is_done() && !self.kept.is_empty()) {
            // Bytes behind an answer belong to no request: the connection cannot be trusted.
            self.keep = false;
        }
        Ok(used)
    }

    /// The node closed: the end of a close-delimited answer, a fault of any other.
    fn ended(&mut self) -> io::Result<()> {
        match &self.stage {
            Stage::Body(Framing::UntilClose) => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Pingora reads behind a complete answer only to see whether it may pool the connection.
    /// It sees an end; the socket stays with its client.
    fn finish(&mut self) {
        self.stage = Stage::Over;
        if let Some(side) = self.side.take()
            && self.keep
            && self.kept.is_empty()
        {
            self.affinity.put(&self.node, side);
        }
    }
}

fn evicted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "node evicted")
}

fn invalid(flow: &LiveFlow, what: &str) -> io::Error {
    flow.answered_badly();
    io::Error::new(io::ErrorKind::InvalidData, format!("node's answer: {what}"))
}

impl AsyncRead for NodeIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &this.stage {
                Stage::Head => ready!(this.poll_head(cx))?,
                Stage::Giving { .. } => {
                    this.give(buf);
                    return Poll::Ready(Ok(()));
                }
                Stage::Body(Framing::Done) => this.finish(),
                Stage::Body(_) => return this.poll_body(cx, buf),
                Stage::Leaving(_) => ready!(this.poll_leaving(cx)),
                Stage::Inert => return Poll::Pending,
                Stage::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for NodeIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.flow.is_evicted() {
            return Poll::Ready(Err(evicted()));
        }
        match this.stage {
            Stage::Inert | Stage::Leaving(_) => Poll::Pending,
            _ => {
                let written = Pin::new(this.side()?).poll_write(cx, data);
                let n = ready!(this.unless_evicted(cx, written))?;
                this.asked.sent(&data[..n]);
                Poll::Ready(Ok(n))
            }
        }
    }

    /// Pingora flushes once the whole head is written, and again behind the body.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.asked.flushed();
        match &mut this.side {
            Some(side) => Pin::new(side).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match (&this.stage, &mut this.side) {
            (Stage::Inert | Stage::Leaving(_), _) | (_, None) => Poll::Ready(Ok(())),
            (_, Some(side)) => Pin::new(side).poll_shutdown(cx),
        }
    }
}

impl VirtualSocket for NodeIo {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // All options were set before the connect.
        Ok(())
    }
}

impl fmt::Debug for NodeIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeIo({})", self.node.name)
    }
}

impl Drop for NodeIo {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Inert | Stage::Leaving(_))
            && self.flow.handoff.phase() == Phase::Switched
            && let Some(side) = self.side.take()
        {
            self.flow
                .handoff
                .leave_node((side, std::mem::take(&mut self.kept)));
        }
    }
}
