//! The integration tests: the real program between real clients and nodes that count what they see.
//!
//! In: the built `pushgate`, configurations (those of `conf/` among them). Out: proof, one module a
//! subject. Nodes and clients are checked against each other first, without an edge between.

use std::future::Future;
use std::time::Duration;

/// Upstream connections belong to one client connection.
mod idle_upstreams;
/// Edges that share a key; a table in a flood.
mod agree;
/// Chromium, driven by WebDriver.
mod browser;
/// Certificates made for one test.
mod certs;
/// Health checks, and what flows meet.
mod checks;
/// Clients: raw, HTTP/1.1 kept alive, HTTP/2, WebSocket, curl; plain and TLS.
mod client;
/// The admin dashboard in a browser, the same from the command line.
mod dashboard;
/// `pushgate demo` in a browser.
mod demo;
/// A wall clock that is set.
mod clock;
/// Diffusion servers behind the edge.
mod diffusion;
/// Plugins that decide by path, address and value.
mod decisions;
/// Nodes found by DNS.
mod dns;
/// Shutdown and reload with live flows.
mod drain;
/// The program under test as a process.
mod edge;
/// What `pushgate explain` says against what the edge does.
mod explain;
/// Bad inputs, row by row.
mod faults;
/// Flows of a dead node.
mod eviction;
/// How flows are ended, and at what pace.
mod goodbye;
/// Harness against itself: client to node, no edge.
mod harness;
/// What HTTP/1 owes its peers: fields, targets, versions, ends.
mod h1_rules;
/// Bytes between node and a client that stopped reading.
mod hidden;
/// Awkward but legal HTTP.
mod http;
/// HTTP/2 clients of HTTP/1 nodes.
mod http2;
/// Configurations made of the servers' own files.
mod import;
/// The real Lightstreamer client, driven line by line.
mod js;
/// Keystores of Java's keytool, keys under a password.
mod keystores;
/// Half-closes, resets, storms and dead nodes at layer 4.
mod layer4;
/// Layer 4 with TLS that ends here, a wildcard bind, assignments that age.
mod layer4_routes;
/// Answers that leave Pingora, and their connections afterwards.
mod leaving;
/// The real Lightstreamer client straight to the TLCP node.
mod lightstreamer;
/// Requests whose node is lost before it answers.
mod lost;
/// A host of its own behind a cable that can be cut.
mod netns;
/// A push node that counts.
mod node;
/// Stapled OCSP responses, from a responder and from a file.
mod ocsp;
/// The guide's deployment options behind the edge.
mod options;
/// The program as a process.
mod program;
/// The PROXY protocol, in and out.
mod proxy_protocol;
/// Clients moved off nodes that have too many; assignments that end.
mod rebalance;
/// TLS as clients and nodes meet it.
mod tls;
/// The rules of a handshake, and where it is made.
mod tls_rules;
/// Sessions that are resumed.
mod tls_sessions;
/// A node that speaks TLS, clients that look at a handshake.
mod tls_node;
/// Stickiness by the id of a push session.
mod session;
/// Certificates replaced under load.
mod reloads;
/// Nodes that a reload took away under their flows.
mod removed;
/// An edge with counting nodes for tests of the core.
mod setup;
/// Descriptors and ports run out: nobody is worse for it than must be.
mod shortage;
/// What `pushgate simulate` says against a real run.
mod simulate;
/// Passed-through TLS by its server name.
mod sni;
/// Clients spread over the data threads.
mod spread;
/// Streamed answers and requests with bodies by the thousand, cut by everybody.
mod soak;
/// Sections of the guides, cited by code and tests.
mod sources;
/// Bytes pass at once, and silence is no fault.
mod streaming;
/// The documents: configurations in them, links between them.
mod readme;
/// A node's Lightstreamer sessions.
mod tlcp;
/// Another process takes the listening sockets over.
mod upgrade;
/// Peers that vanish without a word.
mod vanish;
/// Loopback addresses of a test's own.
mod vip;
/// Reconnect storms and returns.
mod storm;
/// Upgrades: nothing lost, nothing early, nothing unasked.
mod websocket;

/// How long a test waits for an event that should come at once; a loaded two-core machine included.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for `event` until [`DEADLINE`], then panics with `what`.
pub async fn deadline<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}
