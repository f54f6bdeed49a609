//! Reads and judges the heads of an HTTP/1 client, one after the other.
//!
//! In: a socket. Out: judged heads. Bytes read behind a head are kept for the exchange. An idle client has no
//! buffer and no timer.
//! Source: RFC 9112 §2.2, §9.3.2 (pipelining), §9.5.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Sleep, sleep, sleep_until};

use super::request_head::{self, HeadSearch, RequestHead, RequestHeadError};
use crate::config;
use crate::observe::end_reason::EndReason;
use crate::proxy::conn::Conn;
use crate::stream::relay;
use crate::stream::side::{MORE, Side};

/// How long after the begin of a drain a client's request may still arrive. It is served as the last one. If
/// connections were closed at once, a client that has just connected would see a reset under its first
/// request.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// One client of HTTP/1, or one HTTP/2 stream.
pub struct Client {
    /// Its socket.
    pub side: Side,
    /// Bytes that were read and belong to no exchange yet.
    pub ahead: Vec<u8>,
}

/// Why no head was read.
#[derive(Debug)]
pub enum NextHeadError {
    /// The client closed or broke the connection, or an idle connection ended for a drain or to make room. No
    /// answer is due.
    Closed,
    /// The head is illegal.
    Refused(RequestHeadError),
    /// The head began, but its rest did not arrive in time.
    Late,
}

impl Client {
    /// Reads and judges the next head. The `first` one must arrive within `head_timeout` after `conn` was
    /// accepted. A later one may begin at any time, and must arrive within `head_timeout` after its first byte.
    ///
    /// Errors: [`NextHeadError`].
    pub async fn next_head(
        &mut self,
        conf: &config::Listener,
        first: bool,
        drain: &mut Drain,
        conn: &Conn,
    ) -> Result<RequestHead, NextHeadError> {
        let deadline = conf.head_timeout.0;
        let mut timer: Option<Pin<Box<Sleep>>> =
            first.then(|| Box::pin(sleep_until((conn.accepted + deadline).into())));
        let mut search = HeadSearch::default();
        loop {
            if self.ahead.starts_with(b"\r\n") {
                // RFC 9112 §2.2: one empty line before a request is ignored.
                self.ahead.drain(..2);
            }
            if let Some(head) = self.judge(&mut search, &conf.limits)? {
                return Ok(head);
            }
            if self.ahead.is_empty() {
                self.ahead = Vec::new();
            } else {
                timer.get_or_insert_with(|| Box::pin(sleep(deadline)));
            }
            poll_fn(|cx| self.poll_more(cx, &mut timer, drain, conn)).await?;
        }
    }

    /// Reads the beginning of a request's body, up to `bytes` of it. Ready when the client has left.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<EndReason> {
        if !self.side.is_stream() {
            return self.watch(cx);
        }
        while self.ahead.len() < bytes {
            let most = bytes - self.ahead.len();
            match self.side.poll_more(cx, &mut self.ahead, most) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        self.watch(cx)
    }

    /// Keeps the bytes that the client sends meanwhile. Ready when the client has left.
    pub fn watch(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        relay::watch(cx, &mut self.side, &mut self.ahead, &mut false)
    }

    fn judge(
        &mut self,
        search: &mut HeadSearch,
        limits: &config::Limits,
    ) -> Result<Option<RequestHead>, NextHeadError> {
        if self.ahead.is_empty() {
            return Ok(None);
        }
        let end = search.end(&self.ahead, limits);
        let Some(end) = end.map_err(NextHeadError::Refused)? else {
            return Ok(None);
        };
        let head = request_head::judge(&self.ahead[..end], limits);
        let head = head.map_err(NextHeadError::Refused)?;
        match end == self.ahead.len() {
            true => self.ahead = Vec::new(),
            false => drop(self.ahead.drain(..end)),
        }
        Ok(Some(head))
    }

    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Option<Pin<Box<Sleep>>>,
        drain: &mut Drain,
        conn: &Conn,
    ) -> Poll<Result<(), NextHeadError>> {
        if let Poll::Ready(read) = self.side.poll_more(cx, &mut self.ahead, MORE) {
            return Poll::Ready(match read {
                Ok(n) if n > 0 => Ok(()),
                _ => Err(NextHeadError::Closed),
            });
        }
        if timer
            .as_mut()
            .is_some_and(|t| t.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Err(match self.ahead.is_empty() {
                // A browser opens spare connections. It would take an answer here for that of its next
                // request.
                true => NextHeadError::Closed,
                false => NextHeadError::Late,
            }));
        }
        if drain.poll(cx).is_ready() {
            return Poll::Ready(Err(NextHeadError::Closed));
        }
        if conn.listener.poll_closes(cx).is_ready() {
            return Poll::Ready(Err(NextHeadError::Closed));
        }
        conn.idle_upstreams.poll_unused(cx);
        Poll::Pending
    }
}

/// A future of the process's drain for one connection.
pub struct Drain {
    begun: watch::Receiver<bool>,
    /// One future for the whole connection, so it registers once.
    waits: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Drain {
    /// Watches `begun`, which turns true once.
    pub fn new(begun: watch::Receiver<bool>) -> Self {
        Drain { begun, waits: None }
    }

    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Ready when an idle connection must end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let begun = &self.begun;
        let waits = self.waits.get_or_insert_with(|| {
            let mut begun = begun.clone();
            Box::pin(async move {
                let _ = begun.wait_for(|begun| *begun).await;
                Box::pin(sleep(LAST_REQUEST)).await;
            })
        });
        waits.as_mut().poll(cx)
    }
}
