//! The integration tests: the real program between real clients and nodes that count what they see.
//!
//! In: the built `pushgate`, configurations (those of `conf/` among them). Out: proof, one module a
//! subject. Nodes and clients are checked against each other first, without an edge between.

use std::future::Future;
use std::time::Duration;

/// Certificates made for one test.
mod certs;
/// Clients: raw, HTTP/1.1 kept alive, HTTP/2, WebSocket, curl; plain and TLS.
mod client;
/// `pushgate demo` in a browser.
mod demo;
/// Diffusion servers behind the edge.
mod diffusion;
/// The program under test as a process.
mod edge;
/// Harness against itself: client to node, no edge.
mod harness;
/// The real Lightstreamer client, driven line by line.
mod js;
/// The real Lightstreamer client straight to the TLCP node.
mod lightstreamer;
/// A push node that counts.
mod node;
/// The guide's deployment options behind the edge.
mod options;
/// The program as a process.
mod program;
/// The documents: configurations in them, links between them.
mod readme;
/// A node's Lightstreamer sessions.
mod tlcp;
/// Loopback addresses of a test's own.
mod vip;

/// How long a test waits for an event that should come at once; a loaded two-core machine included.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for `event` until [`DEADLINE`], then panics with `what`.
pub async fn deadline<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}
