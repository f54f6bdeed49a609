//! The access log: one JSON line for each flow when it ends. It says what the flow was, where
//! it went and why it ended.
//!
//! The query string is left out unless configured, because push clients put passwords there
//! (Diffusion's JavaScript client sends `username` and `password`). JSON escapes what a
//! client sent, so a client cannot forge a line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use super::metrics;
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
    pub client: std::net::SocketAddr,
    /// Destination address and port.
    pub vip: std::net::SocketAddr,
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

/// Most lines that wait for a slow disk or pipe; further lines are dropped and counted.
const QUEUE: usize = 8192;
/// Longest time for the last lines at the end of the process.
const FLUSH: Duration = Duration::from_secs(1);

type Out = Box<dyn Write + Send>;

enum Message {
    Line(Vec<u8>),
    Reopened(Out),
    Flush(SyncSender<()>),
}

/// Queue of the lines, written by one thread. A full pipe stops the log, but never a flow.
struct Sink {
    path: Option<PathBuf>,
    queue: SyncSender<Message>,
    writer: Mutex<Option<(Receiver<Message>, Out)>>,
}

static SINK: OnceLock<Option<Sink>> = OnceLock::new();

/// Opens the log; a relative file is below `dir`. Called once, before the first flow.
///
/// Errors: the file cannot be opened.
pub fn open(to: &AccessLog, dir: &Path) -> io::Result<()> {
    let (path, out): (_, Out) = match to {
        AccessLog::Off => {
            let _ = SINK.set(None);
            return Ok(());
        }
        AccessLog::Stdout => (None, Box::new(io::stdout())),
        AccessLog::File(path) => {
            let path = dir.join(path);
            let file = append(&path)?;
            (Some(path), file)
        }
    };
    let (queue, lines) = sync_channel(QUEUE);
    let _ = SINK.set(Some(Sink {
        path,
        queue,
        writer: Mutex::new(Some((lines, out))),
    }));
    Ok(())
}

/// Starts the writing thread. Called after a daemon's fork, because a fork would end the thread.
///
/// Errors: the system cannot start a thread.
pub fn start() -> io::Result<()> {
    let Some(Some(sink)) = SINK.get() else {
        return Ok(());
    };
    let Some((lines, mut out)) = sink.writer.lock().take() else {
        return Ok(());
    };
    let write = move || {
        for message in lines {
            match message {
                // If the disk is full, the line is lost.
                Message::Line(line) => drop(out.write_all(&line)),
                Message::Reopened(file) => out = file,
                Message::Flush(done) => drop(
                    out.flush()
                        .and_then(|()| done.send(()).map_err(io::Error::other)),
                ),
            }
        }
    };
    std::thread::Builder::new()
        .name("access-log".into())
        .spawn(write)
        .map(drop)
}

/// Opens the file again, after log rotation.
pub fn reopen() {
    let Some(Some(sink)) = SINK.get() else { return };
    if let Some(path) = &sink.path {
        match append(path) {
            Ok(file) => drop(sink.queue.send(Message::Reopened(file))),
            Err(e) => log::error!(
                "access log {}: cannot reopen it, still writing to the old file: {e}",
                path.display()
            ),
        }
    }
}

/// Waits until the queued lines are written, for one second at most.
pub fn flush() {
    let Some(Some(sink)) = SINK.get() else { return };
    let (done, written) = sync_channel(1);
    if sink.queue.try_send(Message::Flush(done)).is_ok() {
        let _ = written.recv_timeout(FLUSH);
    }
}

/// Whether the log is on; a caller asks first, because building a line allocates.
pub fn is_on() -> bool {
    matches!(SINK.get(), Some(Some(_)))
}

/// Queues a line, or drops and counts it if the queue is full.
pub fn write(line: &Line<'_>) {
    let Some(Some(sink)) = SINK.get() else { return };
    if let Ok(mut text) = serde_json::to_vec(line) {
        text.push(b'\n');
        if sink.queue.try_send(Message::Line(text)).is_err() {
            metrics::get().lost_lines.inc();
        }
    }
}

fn append(path: &Path) -> io::Result<Out> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    Ok(Box::new(file))
}
