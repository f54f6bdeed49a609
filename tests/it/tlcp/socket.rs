//! TLCP over one WebSocket: `wsok`, `create_session`, `bind_session`, `control`, `msg`, `heartbeat`.
//!
//! In: an upgrade to the TLCP sub-protocol. Out: the session's lines as text messages.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::session::{Next, Stream, StreamNumber};
use super::{SUBPROTOCOL, Session, Sessions, Transport, Who, http};
use crate::node::conn::invalid;
use crate::node::request::param;
use crate::node::{Conn, Request, ws};

/// Upgrades and serves until either side closes; the connection ends with the WebSocket.
pub async fn serve(conn: &mut Conn, request: &Request, who: Who) -> io::Result<bool> {
    let asked = request.header("sec-websocket-protocol").unwrap_or_default();
    let protocol = asked.split(',').map(str::trim).find(|p| *p == SUBPROTOCOL);
    let head = ws::accept_head(conn, request, protocol).ok_or_else(|| invalid("no upgrade"))?;
    conn.send(head).await?;
    let shared = conn.shared.clone();
    let mut bound = Bound {
        sessions: &shared.sessions,
        who,
        session: None,
        number: None,
        poll: None,
    };
    let mut socket = ws::socket(conn).await;
    loop {
        let message = match &bound.stream() {
            None => socket.next().await,
            Some(stream) => tokio::select! {
                message = socket.next() => message,
                next = tokio::time::timeout(bound.patience(), stream.next()) => {
                    let lines = bound.said(next);
                    socket.send(Message::text(lines)).await.map_err(ws::failed)?;
                    continue;
                }
            },
        };
        let Some(message) = message else {
            return Ok(false);
        };
        let Message::Text(text) = message.map_err(ws::failed)? else {
            continue;
        };
        let (answer, close) = bound.request(&text);
        if !answer.is_empty() {
            socket
                .send(Message::text(answer))
                .await
                .map_err(ws::failed)?;
        }
        if close {
            // LOOP or END must precede the close, or the client takes it for a failure.
            while let Some(stream) = bound.stream() {
                let lines = bound.said(Ok(stream.next().await));
                socket
                    .send(Message::text(lines))
                    .await
                    .map_err(ws::failed)?;
            }
            socket.close(None).await.map_err(ws::failed)?;
            return Ok(false);
        }
    }
}

/// The session that a WebSocket is bound to.
struct Bound<'a> {
    sessions: &'a Sessions,
    who: Who,
    session: Option<Arc<Session>>,
    /// Set while the session streams or polls on this socket.
    number: Option<StreamNumber>,
    /// Set while it polls.
    poll: Option<Poll>,
}

/// A waiting poll; controls are served meanwhile.
struct Poll {
    until: Instant,
    /// The milliseconds in LOOP.
    millis: u64,
}

impl Bound<'_> {
    fn stream(&self) -> Option<Stream> {
        Some(Stream::resume(self.session.clone()?, self.number?))
    }

    /// How long the socket may be silent.
    fn patience(&self) -> Duration {
        match &self.poll {
            Some(poll) => poll.until.saturating_duration_since(Instant::now()),
            None => self.sessions.settings.keepalive,
        }
    }

    /// The next message for the client; a poll ends with it.
    fn said(&mut self, next: Result<Next, tokio::time::error::Elapsed>) -> String {
        let poll = self.poll.take();
        let (mut told, over) = match next {
            Ok(Next::Lines(lines)) => (lines, poll.is_some()),
            Ok(Next::Ended(end)) => {
                self.number = None;
                return end;
            }
            Ok(Next::Rebind) => (String::new(), true),
            Err(_) if poll.is_some() => (String::new(), true),
            Err(_) => ("PROBE\r\n".to_owned(), false),
        };
        if over {
            self.number = None;
            told += &format!("LOOP,{}\r\n", poll.map_or(0, |p| p.millis));
        }
        told
    }

    /// Executes one message; returns the answer, and whether to close the socket after it.
    fn request(&mut self, text: &str) -> (String, bool) {
        let (kind, form) = text.split_once("\r\n").unwrap_or((text, ""));
        match kind {
            "wsok" => ("WSOK\r\n".to_owned(), false),
            "create_session" => (self.create(form), false),
            "bind_session" => (self.bind(form), false),
            "heartbeat" => ("REQOK\r\n".to_owned(), false),
            "control" | "msg" => {
                self.sessions.control(&self.who);
                let lines = form.lines().filter(|line| !line.is_empty());
                let answer = lines.map(|line| self.command(kind, line)).collect();
                (
                    answer,
                    param(form, "LS_close_socket").as_deref() == Some("true"),
                )
            }
            _ => ("ERROR,65,unknown request\r\n".to_owned(), true),
        }
    }

    fn command(&self, kind: &str, line: &str) -> String {
        let bound = || self.session.as_ref().map(|s| s.id.clone());
        let id = param(line, "LS_session").or_else(bound).unwrap_or_default();
        http::command(self.sessions, kind, &id, line)
    }

    fn create(&mut self, form: &str) -> String {
        let session = self
            .sessions
            .create(form, Transport::WsStreaming, &self.who);
        let greeting = self.sessions.greeting(&session, &self.who);
        self.number = Some(session.attach(None).number());
        self.session = Some(session);
        greeting
    }

    fn bind(&mut self, form: &str) -> String {
        let bound = || self.session.as_ref().map(|s| s.id.clone());
        let id = param(form, "LS_session").or_else(bound).unwrap_or_default();
        let polling = param(form, "LS_polling").is_some();
        let transport = if polling {
            Transport::WsPolling
        } else {
            Transport::WsStreaming
        };
        let session = match self.sessions.bind(&id, form, transport, &self.who) {
            Ok(session) => session,
            Err(code) => return format!("CONERR,{code},session not here\r\n"),
        };
        let answer = self.sessions.greeting(&session, &self.who);
        self.number = Some(session.attach(None).number());
        let millis = |name: &str| param(form, name).and_then(|n| n.parse().ok()).unwrap_or(0);
        self.poll = polling.then(|| Poll {
            until: Instant::now() + Duration::from_millis(millis("LS_idle_millis")),
            millis: millis("LS_polling_millis"),
        });
        self.session = Some(session);
        answer
    }
}
