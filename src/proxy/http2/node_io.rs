//! The node's socket behind a stream of HTTP/2, as Pingora sees it: a stream that follows the framing of
//! one answer.
//!
//! It knows where the answer ends, so the connection goes back to its client's [`Affinity`] by itself
//! (Pingora's pool never holds one, W4, W15), and one that is cut never looks complete (W6).
//! Source: RFC 9112 §6, §9; Diffusion load balancers, "Reuse TCP connection".

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::units::Rate;
use crate::proxy::http1::response_head::{self, Asked};
use crate::stream::framing::Framing;
use crate::stream::side::{MORE, Side};
use crate::upstream::gate::Bucket;
use crate::upstream::{Affinity, LiveFlow, Node};

/// One exchange on one upstream connection.
pub struct NodeIo {
    side: Option<Side>,
    node: Arc<Node>,
    flow: Arc<LiveFlow>,
    affinity: Arc<Affinity>,
    to_head: bool,
    /// The waker left for an eviction.
    told: Option<Waker>,
    /// Most bytes read at once.
    read: usize,
    stage: Stage,
    /// Bytes read but not given to Pingora: a head in the making, then what came behind it.
    kept: Vec<u8>,
    keep: bool,
    /// Interim answers that may still come; `None`: none came yet.
    interim: Option<Bucket>,
}

/// Interim answers (1xx) at once, and how fast more may follow: `102 Processing` as a sign of life goes
/// on for hours, a flood does not (D62).
const INTERIM_BURST: f64 = 100.0;
const INTERIM_RATE: Rate = Rate::a_second(1);

/// The result of a poll of a socket.
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
    /// The socket has gone back to the client's affinity, or is useless.
    Over,
}

enum Next {
    Head,
    Body(Framing),
}

impl NodeIo {
    /// Wraps a connected socket for one exchange.
    pub fn new(
        side: Side,
        node: Arc<Node>,
        flow: Arc<LiveFlow>,
        affinity: Arc<Affinity>,
        to_head: bool,
        read: usize,
    ) -> Self {
        NodeIo {
            side: Some(side),
            node,
            flow,
            affinity,
            to_head,
            told: None,
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

    /// The result of a poll of the socket, or an error if the flow was evicted. An eviction wakes the task.
    fn unless_evicted<T>(&mut self, cx: &mut Context<'_>, asked: Polled<T>) -> Polled<T> {
        let given = self.flow.give_up.poll(cx, &mut self.told).is_ready();
        if given || self.flow.is_evicted() {
            return Poll::Ready(Err(evicted()));
        }
        asked
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let end = response_head::end(&self.kept, 0);
            if let Some(end) = end.map_err(|e| invalid(&self.flow, &format!("{e:?}")))? {
                self.stage = self.judge(end)?;
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Decides what a whole head of `end` bytes means.
    fn judge(&mut self, end: usize) -> io::Result<Stage> {
        let asked = Asked {
            head: self.to_head,
            websocket: false,
        };
        let head = response_head::judge(&self.kept[..end], asked)
            .map_err(|e| invalid(&self.flow, &format!("{e:?}")))?;
        let then = match head.status {
            100..=199 => self.judge_interim(Instant::now())?,
            _ => {
                self.flow.begin();
                self.keep = head.keep;
                Next::Body(head.framing)
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
        let written = Pin::new(this.side()?).poll_write(cx, data);
        this.unless_evicted(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().side {
            Some(side) => Pin::new(side).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().side {
            Some(side) => Pin::new(side).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
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
        self.flow.give_up.leave();
    }
}
