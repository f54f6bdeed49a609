//! The access log: one line for each flow when it ends. It says what the flow was, where
//! it went and why it ended.
//!
//! The query string is left out unless configured, because push clients put passwords there
//! (Diffusion's JavaScript client sends `username` and `password`). JSON escapes what a
//! client sent, so a client cannot forge a line.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use pushgate_plugins::unix::Shown;
use serde::{Serialize, Serializer};

use super::access_form::Form;
use super::journald;
use super::line_queue::{self, LineQueue, Out};
use super::syslog::Sender;
use crate::config::{AccessLog, Log};

/// One line of the log.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Time of the line, in seconds since 1970.
    pub time: f64,
    /// The same as RFC 3339 writes it, in UTC.
    pub date: Date,
    /// `end`, or `begin` of a stream.
    pub event: &'a str,
    /// Number of the flow in this process.
    pub flow: u64,
    /// `X-Request-Id`, as the node got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// Listener.
    pub listener: &'a str,
    /// Client address and port.
    #[serde(serialize_with = "shown")]
    pub client: SocketAddr,
    /// Destination address and port.
    #[serde(serialize_with = "shown")]
    pub vip: SocketAddr,
    /// Protocol: `http/1.1`, `h2`, `websocket`, `tcp`.
    pub protocol: &'a str,
    /// TLS version, if TLS ends here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'a str>,
    /// Server name of the TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
    /// Method.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub method: &'a str,
    /// Host of the request.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub host: &'a str,
    /// Path, with the query only if configured.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub path: &'a str,
    /// Beginning of the request's user agent.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user_agent: &'a str,
    /// Status sent to the client; 0 if none was.
    pub status: u16,
    /// Pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<&'a str>,
    /// Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<&'a str>,
    /// How the node was chosen: `pinned`, `balanced`, `rebalanced`, `connection`, or the
    /// plugin that recalled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<&'a str>,
    /// Nodes tried before this one.
    pub retries: usize,
    /// Bytes passed to the node.
    pub bytes_up: u64,
    /// Bytes passed to the client.
    pub bytes_down: u64,
    /// Duration of the flow, in seconds.
    pub seconds: f64,
    /// End reason of the flow; `None`: it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Who ended it in which phase, in HAProxy's two letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<&'a str>,
}

/// A date as RFC 3339 writes it, in UTC and with milliseconds.
#[derive(Debug)]
pub struct Date(pub SystemTime);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

fn shown<S: Serializer>(address: &SocketAddr, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&Shown(*address))
}

/// Longest time for the last lines at the end of the process.
const FLUSH: Duration = Duration::from_secs(1);

static OPEN: OnceLock<Option<Open>> = OnceLock::new();

/// The log that is on.
struct Open {
    queue: LineQueue,
    begin: bool,
    form: Form,
}

/// What the log has to say of itself goes to the service log, because each of its own lines is a flow.
struct Owner(String);

impl line_queue::Owner for Owner {
    const NAME: &'static str = "access";

    fn lost(&self, lost: u64) -> Option<String> {
        log::warn!("access log {}: {lost} lines were lost", self.0);
        None
    }

    fn failed(&self, e: &io::Error) {
        log::error!(
            "access log {}: cannot write: {e}; lines are lost until it can",
            self.0
        );
    }
}

/// Opens the log; a relative file is below `dir`. Called once, before the first flow.
///
/// Errors: the file cannot be opened.
pub fn open(log: &Log, dir: &Path) -> io::Result<()> {
    let (name, out) = match &log.access {
        AccessLog::Off => {
            let _ = OPEN.set(None);
            return Ok(());
        }
        AccessLog::Stdout => ("on standard output".to_owned(), Out::stream(io::stdout())),
        AccessLog::File(path) => {
            let path = dir.join(path);
            (path.display().to_string(), Out::file(path)?)
        }
        AccessLog::Syslog(to) => ("by syslog".to_owned(), Out::stream(Sender::new(to.clone()))),
        AccessLog::Journald(path) => {
            let journal = journald::Sender::new(path.clone());
            ("in the journal".to_owned(), Out::stream(journal))
        }
    };
    let _ = OPEN.set(Some(Open {
        queue: LineQueue::new(Owner(name), out),
        begin: log.begin,
        form: Form::new(
            &log.fields,
            log.format.as_ref(),
            matches!(log.access, AccessLog::Journald(_)),
        ),
    }));
    Ok(())
}

fn log() -> Option<&'static Open> {
    OPEN.get()?.as_ref()
}

fn queue() -> Option<&'static LineQueue> {
    log().map(|open| &open.queue)
}

/// Starts the writing thread. Called after a daemon's fork, because a fork would end the thread.
///
/// Errors: the system cannot start a thread.
pub fn start() -> io::Result<()> {
    queue().map_or(Ok(()), LineQueue::start)
}

/// Opens the file again, after log rotation. The writing thread does it, because opening may block.
pub fn reopen() {
    queue().into_iter().for_each(LineQueue::reopen);
}

/// Waits until the queued lines are written, for one second at most.
pub fn flush() {
    queue().into_iter().for_each(|queue| queue.flush(FLUSH));
}

/// Whether the log is on; a caller asks first, because building a line allocates.
pub fn is_on() -> bool {
    queue().is_some()
}

/// Whether streams get a line when they begin, too.
pub fn has_begin() -> bool {
    log().is_some_and(|open| open.begin)
}

/// Queues a line, or drops and counts it if the queue is full.
pub fn write(line: &Line<'_>) {
    let Some(open) = log() else { return };
    let text = match &open.form {
        Form::Whole => serde_json::to_vec(line),
        form => serde_json::to_value(line).and_then(|all| form.write(&all)),
    };
    if let Ok(mut text) = text {
        // An entry of the journal ends with its last field.
        if !matches!(open.form, Form::Journal(..)) {
            text.push(b'\n');
        }
        open.queue.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Field;

    fn line() -> Line<'static> {
        Line {
            time: 1.5,
            date: Date(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)),
            event: "end",
            flow: 7,
            request_id: Some("a\"b"),
            listener: "push",
            client: ([192, 0, 2, 1], 5).into(),
            vip: ([192, 0, 2, 2], 80).into(),
            protocol: "http/1.1",
            tls: Some("TLSv1.3"),
            sni: Some("a"),
            method: "GET",
            host: "a",
            path: "/",
            user_agent: "\u{1b}[31m\n\u{202e}",
            status: 200,
            pool: Some("p"),
            node: Some("n"),
            how: Some("balanced"),
            retries: 0,
            bytes_up: 1,
            bytes_down: 2,
            seconds: 0.5,
            reason: Some("done"),
            ended: Some("--"),
        }
    }

    /// Aim: each field can be chosen, and no other exists. Fails if a field is added to the line and not to the keys.
    #[test]
    fn every_field_can_be_chosen() {
        let all = serde_json::to_value(line()).expect("JSON");
        let mut names: Vec<&str> = all
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        let mut fields: Vec<&str> = Field::ALL.iter().map(|field| field.as_str()).collect();
        names.sort_unstable();
        fields.sort_unstable();
        assert_eq!(names, fields);
    }
}
