//! One JSON line for each flow, at its end: what it was, where it went, why it ended.
//!
//! The query string is left out unless asked for: push clients put passwords there
//! (Diffusion's JavaScript client sends `username` and `password` so). JSON escapes what a client
//! sent, so no line can be forged.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;

use crate::config::AccessLog;

/// A line.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Seconds since the epoch at the flow's end.
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
    /// Host asked for.
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
    /// How the node was chosen: `pinned`, `balanced`, or the plugin that recalled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<&'a str>,
    /// Nodes tried before this one.
    pub retries: usize,
    /// Bytes to the node.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// Duration.
    pub seconds: f64,
    /// Why it ended.
    pub reason: &'a str,
}

struct Sink {
    path: Option<PathBuf>,
    out: Mutex<Box<dyn Write + Send>>,
}

static SINK: OnceLock<Option<Arc<Sink>>> = OnceLock::new();

/// Opens the log; called once, before the first flow.
///
/// Errors: the file cannot be opened.
pub fn open(to: &AccessLog) -> std::io::Result<()> {
    let sink = match to {
        AccessLog::Off => None,
        AccessLog::Stdout => Some(Sink {
            path: None,
            out: Mutex::new(Box::new(std::io::stdout())),
        }),
        AccessLog::File(path) => Some(Sink {
            path: Some(path.clone()),
            out: Mutex::new(append(path)?),
        }),
    };
    let _ = SINK.set(sink.map(Arc::new));
    Ok(())
}

/// Opens the file again, after a rotation.
pub fn reopen() {
    let Some(Some(sink)) = SINK.get() else { return };
    if let Some(path) = &sink.path {
        match append(path) {
            Ok(file) => *sink.out.lock() = file,
            Err(e) => log::error!("access log {} cannot be opened again: {e}", path.display()),
        }
    }
}

/// Whether lines are wanted: building one costs an allocation.
pub fn is_on() -> bool {
    matches!(SINK.get(), Some(Some(_)))
}

/// Writes a line. A full disk loses the line, never the flow.
pub fn write(line: &Line<'_>) {
    let Some(Some(sink)) = SINK.get() else { return };
    if let Ok(mut text) = serde_json::to_vec(line) {
        text.push(b'\n');
        let _ = sink.out.lock().write_all(&text);
    }
}

fn append(path: &std::path::Path) -> std::io::Result<Box<dyn Write + Send>> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    Ok(Box::new(file))
}
