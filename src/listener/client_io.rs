//! The client's socket as Pingora sees it: one legal request at a time.
//!
//! Heads are read and judged here before Pingora exists for them, so an idle connection costs no
//! Pingora state; bytes behind a request wait here until its answer is done; after a 101, or the head
//! of an answer that is streamed, the socket leaves with everything behind it. Writes are watched: a client that takes no more stops
//! the reading of its node.
//! Source: RFC 9112 §6, §9.3.2 (pipelining); Lightstreamer clustering §1 (TCP back-pressure).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::exchange::Conn;
use super::handshake;
use super::request_head::{self, Fault, RequestHead};
use crate::config::Limits;
use crate::stream::framing::Framing;
use crate::stream::handoff::{Left, Phase};
use crate::stream::joined::{self, Joined};
use crate::stream::side::{MORE, Side};
use crate::upstream::{LiveFlow, leaving};

/// Most bytes kept behind a request that is not answered yet (pipelining, early WebSocket frames).
pub const MAX_AHEAD: usize = 16 * 1024;

/// One client connection.
pub struct ClientIo {
    side: Option<Side>,
    conn: Arc<Conn>,
    /// The flow now served; `None` for HTTP/2, whose bytes pass as they are.
    flow: Option<Arc<LiveFlow>>,
    /// Bytes read and not yet given: the head, then what came behind it.
    ahead: Vec<u8>,
    /// How many of `ahead` are the present head's.
    head: usize,
    body: Framing,
    fin: bool,
    /// Collects the head with which the sockets leave, on its way to the client.
    written: Vec<u8>,
    joined: Joined,
}

/// Why no head could be read.
#[derive(Debug)]
pub enum NoHead {
    /// The client closed between requests.
    Closed,
    /// The head is not legal.
    Fault(Fault),
    /// The connection broke, or closed within a head.
    Broken,
}

impl ClientIo {
    /// Wraps a client's connection, with what was read from it ahead.
    pub fn new((side, ahead): Left, conn: Arc<Conn>) -> Self {
        ClientIo {
            side: Some(side),
            conn,
            flow: None,
            ahead,
            head: 0,
            body: Framing::UntilClose,
            fin: false,
            written: Vec::new(),
            joined: Joined::default(),
        }
    }

    /// Waits for the first byte of the next request, for ever.
    pub async fn wait(&mut self) -> Result<(), NoHead> {
        if self.ahead.is_empty() {
            // An idle connection keeps no buffer, neither the last head's.
            self.ahead = Vec::new();
            self.fill().await
        } else {
            Ok(())
        }
    }

    /// Reads the next head to its end and judges it. The caller sets the deadline.
    pub async fn read_head(&mut self, limits: &Limits) -> Result<RequestHead, NoHead> {
        let mut looked = 0;
        loop {
            if looked == 0 && self.ahead.starts_with(b"\r\n") {
                // RFC 9112 §2.2: one empty line before a request is ignored.
                self.ahead.drain(..2);
            }
            if let Some(end) =
                request_head::end(&self.ahead, looked, limits).map_err(NoHead::Fault)?
            {
                let head =
                    request_head::check(&self.ahead[..end], limits).map_err(NoHead::Fault)?;
                self.head = end;
                return Ok(head);
            }
            looked = self.ahead.len().saturating_sub(3);
            self.fill().await.map_err(|e| {
                if self.ahead.is_empty() {
                    e
                } else {
                    NoHead::Broken
                }
            })?;
        }
    }

    async fn fill(&mut self) -> Result<(), NoHead> {
        let Some(side) = &mut self.side else {
            return Err(NoHead::Broken);
        };
        match poll_fn(|cx| side.poll_more(cx, &mut self.ahead, MORE)).await {
            Ok(0) => Err(NoHead::Closed),
            Ok(_) => Ok(()),
            Err(_) => Err(NoHead::Broken),
        }
    }

    /// Whether no byte of a request has come.
    pub fn has_nothing(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Begins the exchange whose head was just read.
    pub fn begin(&mut self, flow: Arc<LiveFlow>, head: &RequestHead) {
        flow.handoff.set_phase(if head.websocket {
            Phase::Asked
        } else {
            Phase::Ordinary
        });
        self.flow = Some(flow);
        self.body = head.framing.clone();
    }

    /// Waits until the client has closed its sending half, or is gone.
    pub async fn ended(&self) {
        if let Some(side) = &self.side {
            side.tcp().peer_ended().await;
        }
    }

    /// Answers without Pingora and without waiting for a client that does not read.
    pub async fn answer(&mut self, bytes: &[u8]) {
        if let Some(side) = &mut self.side {
            handshake::last_words(side, bytes).await;
        }
    }

    fn phase(&self) -> Phase {
        self.flow
            .as_ref()
            .map_or(Phase::Ordinary, |f| f.handoff.phase())
    }

    fn give_head(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.head.min(buf.remaining());
        buf.put_slice(&self.ahead[..n]);
        self.ahead.drain(..n);
        self.head -= n;
        if self.ahead.is_empty() {
            // A poll may be held for long: it keeps no buffer for the head that is with Pingora.
            self.ahead = Vec::new();
        }
    }

    /// Behind the request: nothing is given, FIN is told, the rest is kept up to a limit.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < MAX_AHEAD {
            let Some(side) = &mut self.side else {
                return Poll::Ready(Ok(()));
            };
            let room = MAX_AHEAD - self.ahead.len();
            if ready!(side.poll_more(cx, &mut self.ahead, room))? == 0 {
                self.fin = true;
                return Poll::Ready(Ok(()));
            }
        }
        if let Some(side) = &self.side {
            ready!(side.tcp().poll_ended(cx));
        }
        self.fin = true;
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            let Some(side) = &mut self.side else {
                return Poll::Ready(Ok(()));
            };
            ready!(Pin::new(side).poll_read(cx, buf))?;
        } else {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.drain(..n);
        }
        let data = &buf.filled()[before..];
        if data.is_empty() {
            self.fin = true;
            return Poll::Ready(Ok(()));
        }
        let used = self.body.advance(data).map_err(|_| {
            self.conn.bad_body.store(true, Ordering::Release);
            io::Error::from(io::ErrorKind::InvalidData)
        })?;
        let up = &self.conn.bytes_up;
        up.fetch_add(used as u64, Ordering::Relaxed);
        if used < data.len() {
            // The next request came with this one: it goes back in front of what was kept.
            self.ahead.splice(0..0, data[used..].iter().copied());
            buf.set_filled(before + used);
        }
        Poll::Ready(Ok(()))
    }

    /// Notes what the client's kernel took.
    fn wrote(&mut self, n: usize, data: &[u8]) {
        self.conn.bytes_down.fetch_add(n as u64, Ordering::Relaxed);
        let Some(flow) = &self.flow else { return };
        flow.handoff.client_took();
        if flow.handoff.phase() != Phase::Switching {
            return;
        }
        self.written.extend_from_slice(&data[..n]);
        leaving::settle(&flow.handoff, &mut self.written);
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase() >= Phase::Switching {
            return Poll::Pending;
        }
        if this.head > 0 {
            this.give_head(buf);
            return Poll::Ready(Ok(()));
        }
        if this.fin {
            return Poll::Ready(Ok(()));
        }
        if this.body.is_done() {
            this.poll_behind(cx)
        } else {
            this.poll_body(cx, buf)
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.phase() == Phase::Switched {
            return Poll::Pending;
        }
        let Some(side) = &mut this.side else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if this.flow.as_ref().is_some_and(|f| f.handoff.body_follows()) {
            let n = this.joined.keep(bufs);
            this.wrote(n, &[]);
            return Poll::Ready(Ok(n));
        }
        match this.joined.poll_write(cx, side, bufs) {
            Poll::Pending => {
                if let Some(flow) = &this.flow {
                    flow.handoff.client_blocked();
                }
                Poll::Pending
            }
            Poll::Ready(Ok(n)) => {
                let switching = this.phase() == Phase::Switching;
                let data = joined::first(bufs, if switching { n } else { 0 });
                this.wrote(n, &data);
                Poll::Ready(Ok(n))
            }
            failed => failed,
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.side {
            Some(side) => this.joined.poll_flush(cx, side),
            None => Poll::Ready(Ok(())),
        }
    }

    /// After a 101 Pingora may shut the client down at once (W1); that must not reach the socket, and
    /// neither may an orderly end of an answer that is cut (W6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let reset = this.flow.as_ref().is_some_and(|f| f.must_reset());
        match (reset || this.phase() >= Phase::Switching, &mut this.side) {
            (false, Some(side)) => Pin::new(side).poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[async_trait]
impl Shutdown for ClientIo {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientIo {
    fn id(&self) -> i32 {
        self.side.as_ref().map_or(-1, |s| s.tcp().fd())
    }
}

impl Ssl for ClientIo {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        let alpn = self.side.as_ref()?.ssl()?.selected_alpn_protocol()?;
        Some(if alpn == b"h2" { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for ClientIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for ClientIo {}

impl fmt::Debug for ClientIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIo({})", self.conn.client)
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        let (Some(flow), Some(side)) = (&self.flow, self.side.take()) else {
            return;
        };
        if flow.handoff.phase() == Phase::Switched {
            flow.handoff
                .leave_client((side, std::mem::take(&mut self.ahead)));
        } else if flow.must_reset() {
            side.tcp().reset_on_close();
        } else if flow.is_evicted() {
            side.tcp().reset_on_close_if_stalled();
        } else if !self.fin && !self.body.is_done() {
            self.conn.parting.lock().replace(Box::new(side));
        }
    }
}
