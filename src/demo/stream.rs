//! The five ways a demo node pushes: WebSocket, SSE, chunked, Content-Length, long poll.
//!
//! In: a request, with `?every_ms=` for another period than 500 ms. Out: a message at once, then one each
//! period. Messages are numbered from 1 within their stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::node::{Message, Node};
use super::websocket::{Kind, Socket, upgrade};

/// Default period, in milliseconds: fast enough to look live, slow enough to read.
const EVERY_MS: u64 = 500;
/// Range of the period that a request may ask for, in milliseconds.
const EVERY_MS_MIN: u64 = 1;
const EVERY_MS_MAX: u64 = 60_000;
/// Messages of a Content-Length stream: a minute at the default period.
const LENGTH_MESSAGES: u64 = 120;
/// Bytes of each of these messages, including padding and line end.
const LINE_BYTES: usize = 64;

/// The period of a stream, from the query of its request.
#[derive(Deserialize)]
pub(super) struct Pace {
    #[serde(default = "every_ms")]
    every_ms: u64,
}

fn every_ms() -> u64 {
    EVERY_MS
}

impl Pace {
    fn period(&self) -> Duration {
        Duration::from_millis(self.every_ms.clamp(EVERY_MS_MIN, EVERY_MS_MAX))
    }

    /// Returns a timer that ticks at once, then each period. A client that stopped reading gets no burst
    /// afterwards.
    fn ticks(&self) -> Interval {
        let mut ticks = interval(self.period());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}

type ThisNode = State<Arc<Node>>;

fn messages(
    node: Arc<Node>,
    pace: &Pace,
    over: &'static str,
) -> impl Stream<Item = Message> + use<> {
    stream::unfold((pace.ticks(), 1), move |(mut ticks, count)| {
        let node = node.name;
        async move {
            ticks.tick().await;
            Some((Message { node, count, over }, (ticks, count + 1)))
        }
    })
}

fn json(message: &Message) -> String {
    serde_json::to_string(message).expect("strings and a number always serialise")
}

/// Answers with server-sent events; the id of an event is its number.
pub(super) async fn sse(State(node): ThisNode, Query(pace): Query<Pace>) -> Response {
    let events = messages(node, &pace, "sse").map(|m| {
        let event = Event::default().id(m.count.to_string()).data(json(&m));
        Ok::<_, Infallible>(event)
    });
    Sse::new(events).into_response()
}

/// Answers with endless JSON lines, in `Transfer-Encoding: chunked`.
pub(super) async fn chunked(State(node): ThisNode, Query(pace): Query<Pace>) -> Response {
    let lines = messages(node, &pace, "chunked").map(|m| Ok::<_, Infallible>(json(&m) + "\n"));
    lines_response(Body::from_stream(lines))
}

/// Answers with 120 JSON lines of equal length, and a `Content-Length`.
pub(super) async fn length(State(node): ThisNode, Query(pace): Query<Pace>) -> Response {
    let lines = messages(node, &pace, "length").take(LENGTH_MESSAGES as usize);
    let lines = lines.map(|m| {
        let width = LINE_BYTES - 1;
        Ok::<_, Infallible>(format!("{:<width$}\n", json(&m)))
    });
    let mut response = lines_response(Body::from_stream(lines));
    let bytes = LENGTH_MESSAGES * LINE_BYTES as u64;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, bytes.into());
    response
}

fn lines_response(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// Answers with one message after a period of silence.
pub(super) async fn poll(State(node): ThisNode, Query(pace): Query<Pace>) -> Response {
    sleep_until(Instant::now() + pace.period()).await;
    let message = Message {
        node: node.name,
        count: node.next_answer(),
        over: "poll",
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(message)).into_response()
}

/// Opens a WebSocket on which the node speaks first; messages of the client come back unchanged.
pub(super) async fn ws(
    State(node): ThisNode,
    Query(pace): Query<Pace>,
    request: Request,
) -> Response {
    upgrade(request, move |socket| talk(socket, node, pace))
}

async fn talk(mut socket: Socket, node: Arc<Node>, pace: Pace) {
    let mut messages = Box::pin(messages(node, &pace, "ws"));
    loop {
        let (kind, payload) = tokio::select! {
            Some(message) = messages.next() => (Kind::Text, json(&message).into_bytes()),
            got = socket.receive() => match got {
                Ok(got) if got.kind == Kind::Ping => (Kind::Pong, got.payload),
                Ok(got) if got.kind == Kind::Pong => continue,
                Ok(got) => (got.kind, got.payload),
                Err(_) => return,
            },
        };
        let sent = socket.send(kind, &payload).await;
        // A close frame is echoed like a message and is the last frame (RFC 6455 §5.5.1).
        if sent.is_err() || kind == Kind::Close {
            return;
        }
    }
}
