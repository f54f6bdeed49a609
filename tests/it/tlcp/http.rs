//! TLCP over HTTP: create, bind (streaming, polling, recovery), control, msg, heartbeat.
//!
//! In: POSTs to `/lightstreamer/*.txt`. Out: lines, chunked or under a Content-Length.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::session::{Next, Stream};
use super::{Transport, Who};
use crate::node::request::param;
use crate::node::{Conn, Request};

/// Answers one request; false if the connection must end after it.
pub async fn serve(conn: &mut Conn, request: &Request, who: Who) -> io::Result<bool> {
    let form = String::from_utf8_lossy(&request.body).into_owned();
    conn.origin = request.header("origin").map(str::to_owned);
    let shared = conn.shared.clone();
    let sessions = &shared.sessions;
    match request.path() {
        "/lightstreamer/create_session.txt" => {
            let session = sessions.create(&form, Transport::HttpCreate, &who);
            // The client requests a poll without a length, and binds the stream to the node it reached.
            let greeting = sessions.greeting(&session, &who);
            // A client that gives a length wants the stream at once.
            match param(&form, "LS_content_length").and_then(|n| n.parse().ok()) {
                Some(limit) => stream_lines(conn, greeting, &session.attach(None), limit).await,
                None => text(conn, &format!("{greeting}LOOP,0\r\n")).await,
            }
        }
        "/lightstreamer/bind_session.txt" => bind(conn, &form, who).await,
        "/lightstreamer/control.txt"
        | "/lightstreamer/msg.txt"
        | "/lightstreamer/heartbeat.txt" => {
            sessions.control(&who);
            let answer = commands(conn, request, &form);
            text(conn, &answer).await
        }
        _ => text(conn, "ERROR,65,unknown request\r\n").await,
    }
}

/// Executes the lines of a control or msg request.
fn commands(conn: &Conn, request: &Request, form: &str) -> String {
    let sessions = &conn.shared.sessions;
    let outer = request.query("LS_session");
    let lines = form.lines().filter(|line| !line.is_empty());
    let answers: String = lines
        .map(|line| {
            let id = param(line, "LS_session")
                .or_else(|| outer.clone())
                .unwrap_or_default();
            command(sessions, request.path(), &id, line)
        })
        .collect();
    match answers.is_empty() {
        // A heartbeat has an empty body.
        true => "REQOK\r\n".to_owned(),
        false => answers,
    }
}

/// Executes one line of a control or msg request for the session `id`.
pub fn command(sessions: &super::Sessions, kind: &str, id: &str, line: &str) -> String {
    let session = match sessions.find(id) {
        Ok(session) => session,
        Err(code) => {
            let request = param(line, "LS_reqId").unwrap_or_default();
            return format!("REQERR,{request},{code},session not here\r\n");
        }
    };
    if kind.contains("msg") {
        let message = param(line, "LS_message").unwrap_or_default();
        sessions.count(|c| c.messages.push(message));
        return session.message(line);
    }
    let answer = session.control(line);
    if param(line, "LS_op").as_deref() == Some("destroy") {
        sessions.end(id);
    }
    answer
}

async fn bind(conn: &mut Conn, form: &str, who: Who) -> io::Result<bool> {
    let shared = conn.shared.clone();
    let sessions = &shared.sessions;
    let id = param(form, "LS_session").unwrap_or_default();
    let polling = param(form, "LS_polling").is_some();
    let transport = match polling {
        true => Transport::HttpPolling,
        false => Transport::HttpStreaming,
    };
    let session = match sessions.bind(&id, form, transport, &who) {
        Ok(session) => session,
        Err(code) => return text(conn, &format!("CONERR,{code},session not here\r\n")).await,
    };
    let recovery = param(form, "LS_recovery_from").and_then(|n| n.parse().ok());
    let stream = session.attach(recovery);
    let mut opening = sessions.greeting(&session, &who);
    if recovery.is_some() {
        opening += &format!("PROG,{}\r\n", stream.progress());
    }
    if polling {
        return poll(conn, form, opening, &stream).await;
    }
    let asked = param(form, "LS_content_length").and_then(|n| n.parse().ok());
    let limit = sessions
        .settings
        .content_length
        .or(asked)
        .unwrap_or(1 << 20);
    stream_lines(conn, opening, &stream, limit).await
}

/// Answers with the pending lines, or waits as long as the client allows.
async fn poll(
    conn: &mut Conn,
    form: &str,
    mut answer: String,
    stream: &Stream,
) -> io::Result<bool> {
    let millis = |name: &str| param(form, name).and_then(|n| n.parse().ok()).unwrap_or(0);
    let idle = Duration::from_millis(millis("LS_idle_millis"));
    let next = tokio::select! {
        next = timeout(idle, stream.next()) => next,
        end = conn.ended() => return Err(end),
    };
    match next {
        Ok(Next::Lines(lines)) => answer += &lines,
        Ok(Next::Ended(end)) => return text(conn, &(answer + &end)).await,
        Ok(Next::Rebind) | Err(_) => {}
    }
    answer += &format!("LOOP,{}\r\n", millis("LS_polling_millis"));
    text(conn, &answer).await
}

/// Sends one long answer, ended by LOOP at `limit` bytes; padded if it has a Content-Length.
async fn stream_lines(
    conn: &mut Conn,
    opening: String,
    stream: &Stream,
    limit: usize,
) -> io::Result<bool> {
    let settings = conn.shared.sessions.settings.clone();
    let mut out = Answer::open(conn, settings.fixed_length.then_some(limit)).await?;
    out.line(conn, &opening).await?;
    loop {
        let next = tokio::select! {
            next = timeout(settings.keepalive, stream.next()) => next,
            // A client that leaves without a request may come back: the session stays.
            end = conn.ended() => return Err(end),
        };
        match next {
            Ok(Next::Lines(lines)) => out.line(conn, &lines).await?,
            Ok(Next::Ended(end)) => {
                out.line(conn, &end).await?;
                return out.finish(conn).await;
            }
            Ok(Next::Rebind) => break,
            Err(_) => out.line(conn, "PROBE\r\n").await?,
        }
        if out.sent + RESERVE > limit {
            break;
        }
    }
    out.line(conn, "LOOP,0\r\n").await?;
    out.finish(conn).await
}

/// A streaming answer: chunks, or exactly its Content-Length.
struct Answer {
    length: Option<usize>,
    sent: usize,
}

impl Answer {
    async fn open(conn: &mut Conn, length: Option<usize>) -> io::Result<Answer> {
        let framing = match length {
            Some(length) => format!("Content-Length: {length}"),
            None => "Transfer-Encoding: chunked".to_owned(),
        };
        let head = head(conn);
        conn.send(format!("{head}{framing}\r\n\r\n")).await?;
        Ok(Answer { length, sent: 0 })
    }

    async fn line(&mut self, conn: &mut Conn, lines: &str) -> io::Result<()> {
        self.sent += lines.len();
        match self.length {
            Some(_) => conn.send(lines).await,
            None => conn.chunk(lines).await,
        }
    }

    /// Ends the answer. False if the Content-Length is not reached: the connection ends short, like that of a
    /// server that stops within a stream.
    async fn finish(self, conn: &mut Conn) -> io::Result<bool> {
        match self.length {
            Some(length) => Ok(self.sent == length),
            None => conn.send("0\r\n\r\n").await.map(|()| true),
        }
    }
}

async fn text(conn: &mut Conn, body: &str) -> io::Result<bool> {
    let (head, length) = (head(conn), body.len());
    conn.send(format!("{head}Content-Length: {length}\r\n\r\n{body}"))
        .await?;
    Ok(true)
}

/// The head of every answer; pages of other origins may read it, also when they send cookies.
fn head(conn: &Conn) -> String {
    let origin = conn.origin.as_ref().map(|origin| {
        format!(
            "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n"
        )
    });
    HEAD.to_owned() + &origin.unwrap_or_default()
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nServer: Lightstreamer-like test node\r\nCache-Control: no-store\r\n\
                    Content-Type: text/plain; charset=utf-8\r\n";
/// Room for one more batch of updates and LOOP below the Content-Length.
const RESERVE: usize = 1024;
