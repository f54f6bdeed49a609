//! The access log: one JSON line for each flow when it ends. It says what the flow was, where
//! it went and why it ended.
//!
//! The query string is left out unless configured, because push clients put passwords there
//! (Diffusion's JavaScript client sends `username` and `password`). JSON escapes what a
//! client sent, so a client cannot forge a line.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use pushgate_plugins::unix::Shown;
use serde::{Serialize, Serializer};

use super::line_queue::{self, LineQueue, Out};
use crate::config::AccessLog;

/// One line of the log.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// End of the flow, in seconds since 1970.
    pub time: f64,
    /// Number of the flow in this process.
    pub flow: u64,
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
    /// End reason of the flow.
    pub reason: &'a str,
}

fn shown<S: Serializer>(address: &SocketAddr, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&Shown(*address))
}

/// Longest time for the last lines at the end of the process.
const FLUSH: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Option<LineQueue>> = OnceLock::new();

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
pub fn open(to: &AccessLog, dir: &Path) -> io::Result<()> {
    let (name, out) = match to {
        AccessLog::Off => {
            let _ = QUEUE.set(None);
            return Ok(());
        }
        AccessLog::Stdout => ("on standard output".to_owned(), Out::stream(io::stdout())),
        AccessLog::File(path) => {
            let path = dir.join(path);
            (path.display().to_string(), Out::file(path)?)
        }
    };
    let _ = QUEUE.set(Some(LineQueue::new(Owner(name), out)));
    Ok(())
}

fn queue() -> Option<&'static LineQueue> {
    QUEUE.get()?.as_ref()
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

/// Queues a line, or drops and counts it if the queue is full.
pub fn write(line: &Line<'_>) {
    let Some(queue) = queue() else { return };
    if let Ok(mut text) = serde_json::to_vec(line) {
        text.push(b'\n');
        queue.push(text);
    }
}
