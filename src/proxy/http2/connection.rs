//! Serves one HTTP/2 connection: reads its frames, and begins a task for each request. It ends when its
//! client leaves or breaks the protocol, or by a drain.
//!
//! In: the client's side. Out: streams, each with its own exchange. A fault of the client ends its stream or
//! its connection, and is counted by its reason.
//! Source: RFC 9113 §3.4, §5.1, §5.4, §6; §6.8 (drain); §10.5.

mod end;
mod read;
mod take;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::Reason;
use h2::frame::{Settings, StreamId, WindowUpdate};
use tokio::io::AsyncReadExt;
use tokio::time::{Sleep, sleep, sleep_until};

use self::end::{End, Ended, close, count};
use super::hpack::Decoder;
use super::input::Input;
use super::limits::Counts;
use super::mux::{Mux, STREAM_WINDOW, Shared};
use super::stream::Stream;
use crate::config::{self, Http2Limits};
use crate::observe::end_reason::EndReason;
use crate::proxy::conn::Conn;
use crate::proxy::http1::client::{Client, Drain};
use crate::proxy::http1::exchange::{Outcome, exchange};
use crate::proxy::http1::refuse::refuse;
use crate::proxy::http1::request_head::RequestHead;
use crate::proxy::service::Service;
use crate::proxy::turn::Turn;
use crate::stream::side::Side;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The stream number in the first GOAWAY of a drain: the highest, because requests may be on their way (RFC
/// 9113 §6.8).
const ALL: u32 = i32::MAX as u32;

/// Serves the connection to its end.
pub async fn serve(mut side: Side, conn: Arc<Conn>, service: Arc<Service>) {
    let conf = conn.listener.conf.load_full();
    let mut deadline = Box::pin(sleep_until((conn.accepted + conf.head_timeout.0).into()));
    let limits = conf.limits.http2.clone();
    let mut preface = [0; PREFACE.len()];
    let mut drain = Drain::new(service.drain.clone());
    let read = tokio::select! {
        biased;
        read = side.read_exact(&mut preface) => read,
        () = &mut deadline => return count(&conn, Ended::HeadTimeout),
        // A client that has sent nothing yet loses nothing.
        () = poll_fn(|cx| drain.poll(cx)) => return,
        () = poll_fn(|cx| conn.listener.poll_closes(cx)) => return,
    };
    match read {
        Ok(_) if preface == *PREFACE => {}
        Ok(_) => return count(&conn, Ended::Preface),
        Err(_) => return,
    }
    let window = limits.streams.saturating_mul(STREAM_WINDOW).min(ALL);
    let decoder = Decoder::new(limits.header_table.0 as usize);
    let input = Input::new(decoder, list_size(&conf.limits));
    let mux = Mux::new(side, window);
    let websocket = conf.tls.as_ref().is_some_and(|tls| tls.h2_websocket);
    announce(&mut mux.lock(), &conf.limits, window, websocket);
    drop(conf);
    let mut connection = Connection {
        mux,
        input,
        drain,
        conn,
        service,
        deadline: Some(deadline),
        limits,
        counts: Counts::default(),
        window,
        websocket,
        greeted: false,
        settled: false,
        leaving: Leaving::No,
        new_streams: Vec::new(),
        heads: 0,
        unread: Vec::new(),
        stalled: None,
    };
    let end = poll_fn(|cx| connection.poll(cx)).await;
    let Connection { mux, conn, .. } = connection;
    Box::pin(close(mux, conn, end)).await;
}

/// Returns the limit of a header list as HPACK counts it. It is large enough for every head that our limits
/// allow.
fn list_size(limits: &config::Limits) -> usize {
    const FOR_EACH: usize = 32;
    let head = usize::try_from(limits.head.0).unwrap_or(usize::MAX);
    head.saturating_add(FOR_EACH * (limits.headers + 8))
}

/// Sends our settings.
fn announce(mux: &mut Mux, limits: &config::Limits, window: u32, websocket: bool) {
    let mut settings = Settings::default();
    let default = h2::frame::DEFAULT_SETTINGS_HEADER_TABLE_SIZE as u64;
    if limits.http2.header_table.0 != default {
        settings.set_header_table_size(Some(limits.http2.header_table.0 as u32));
    }
    settings.set_max_concurrent_streams(Some(limits.http2.streams));
    settings.set_max_header_list_size(u32::try_from(list_size(limits)).ok());
    if websocket {
        settings.set_enable_connect_protocol(Some(1));
    }
    settings.encode(mux.output());
    if let Some(more) = window.checked_sub(STREAM_WINDOW).filter(|more| *more > 0) {
        WindowUpdate::new(StreamId::ZERO, more).encode(mux.output());
    }
}

/// One connection.
struct Connection {
    mux: Shared,
    input: Input,
    conn: Arc<Conn>,
    service: Arc<Service>,
    /// Runs until the first request, and while a frame is incomplete and no stream is open.
    deadline: Option<Pin<Box<Sleep>>>,
    drain: Drain,
    limits: Http2Limits,
    counts: Counts,
    window: u32,
    websocket: bool,
    /// The client's settings have arrived.
    greeted: bool,
    /// The client has acknowledged our settings.
    settled: bool,
    leaving: Leaving,
    /// Streams whose tasks begin when the lock is free.
    new_streams: Vec<NewStream>,
    /// Streams that the client began in this turn of the runtime.
    heads: usize,
    /// Bytes that were read, and whose frames wait for the connection's next turn.
    unread: Vec<u8>,
    /// Set while the client is above its rate.
    stalled: Option<Box<Stalled>>,
}

/// A client that waits for its turn. Until it comes, the edge takes nothing more from the connection.
struct Stalled {
    turn: Turn,
    /// The stream that begins then; `None`: it was refused.
    stream: Option<NewStream>,
}

/// How far a drain has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was told to open no more streams.
    Told,
    /// Streams behind this one are not served.
    Last(u32),
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let polled = self.poll_locked(cx);
        // Without the lock: a runtime that stops drops a new task at once, and the task's stream takes the
        // lock.
        for new in std::mem::take(&mut self.new_streams) {
            let (conn, service) = (self.conn.clone(), self.service.clone());
            match new {
                NewStream::Request(stream, head) => {
                    let draining = self.drain.has_begun();
                    tokio::spawn(carry(stream, head, conn, service, draining));
                }
                NewStream::Refused(stream, status) => {
                    let side = Side::Stream(Box::new(stream));
                    tokio::spawn(async move {
                        refuse(side, &conn, "h2", status, EndReason::BadRequest).await;
                    });
                }
            }
        }
        polled
    }

    fn poll_locked(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let shared = self.mux.clone();
        let mut mux = shared.lock();
        mux.wait(cx);
        if let Poll::Ready(end) = self.poll_frames(cx, &mut mux) {
            return Poll::Ready(end);
        }
        if self.poll_deadline(cx, &mux).is_ready() {
            return Poll::Ready(End::Late);
        }
        // Not if a new request may take one: only the next turn of the runtime shows what has arrived on it.
        if self.new_streams.is_empty() {
            self.conn.idle_upstreams.poll_unused(cx);
        }
        // Polled at each turn, because no turn follows when the last stream ends.
        let closes = self.conn.listener.poll_closes(cx).is_ready();
        if closes && self.new_streams.is_empty() && mux.is_idle() {
            return Poll::Ready(End::Closes);
        }
        self.poll_drain(cx, &mut mux);
        mux.give_back(self.window);
        let unread = mux.is_clogged();
        mux.flush();
        if unread && !mux.is_clogged() {
            cx.waker().wake_by_ref();
        }
        match self.leaving {
            Leaving::Last(_) if mux.is_idle() => Poll::Ready(End::Drained),
            _ => Poll::Pending,
        }
    }

    /// Ready when the first request, or the rest of a frame, did not arrive in time. A client with an open
    /// stream has no deadline: its network may be gone for a while, and its stream costs more than the frame.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, mux: &Mux) -> Poll<()> {
        let waits_for_us = self.stalled.is_some() || !self.unread.is_empty();
        let has_streams = mux.last() > 0 && !mux.is_idle();
        let is_waited_for = mux.last() == 0 || self.input.is_within_frame();
        if has_streams || waits_for_us || !is_waited_for {
            self.deadline = None;
            return Poll::Pending;
        }
        let timeout = || self.conn.listener.conf.load().head_timeout.0;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout())));
        deadline.as_mut().poll(cx)
    }

    /// Drains the connection. A first GOAWAY refuses no stream. After the delay of [`Drain`], time for
    /// requests on their way, a second one names the last stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>, mux: &mut Mux) {
        if matches!(self.leaving, Leaving::Last(_)) {
            return;
        }
        let over = self.drain.poll(cx).is_ready();
        if self.leaving == Leaving::No && self.drain.has_begun() {
            self.leaving = Leaving::Told;
            mux.go_away(ALL, Reason::NO_ERROR);
        }
        if over {
            self.leaving = Leaving::Last(mux.last());
            mux.go_away(mux.last(), Reason::NO_ERROR);
        }
    }
}

/// A stream that has just begun.
enum NewStream {
    Request(Stream, Box<RequestHead>),
    Refused(Stream, (u16, &'static str)),
}

/// Carries the exchange of one stream.
async fn carry(
    stream: Stream,
    request: Box<RequestHead>,
    conn: Arc<Conn>,
    service: Arc<Service>,
    draining: bool,
) {
    let client = Client {
        side: Side::Stream(Box::new(stream)),
        ahead: Vec::new(),
    };
    let carried = exchange(client, &conn, *request, &service.hooks, draining);
    if let Outcome::Answering(answer) = Box::pin(carried).await {
        answer.run().await;
    }
}
