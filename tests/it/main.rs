//! The integration tests: the real program between real clients and nodes that count what they see.
//!
//! In: the built `pushgate`, configurations (including those of `conf/`). Out: proof, one module for each
//! subject. First, nodes and clients are checked against each other without an edge.

use std::future::Future;
use std::time::Duration;

/// Upstream connections belong to one client connection.
mod idle_upstreams;
/// Certificates that the edge gets itself, by ACME.
mod acme;
/// The admin endpoint under clients that take what they can get.
mod admin;
/// Edges that share a key; a sticky table under a flood of addresses.
mod agree;
/// Backup nodes, and the address from which nodes are connected to.
mod backups;
/// Chromium, driven by WebDriver.
mod browser;
/// Certificates made for one test.
mod certs;
/// Health checks and passive health.
mod checks;
/// Clients: raw, HTTP/1.1 kept alive, HTTP/2, WebSocket, curl; plain and TLS.
mod client;
/// The admin dashboard in a browser, and the same orders from the command line.
mod dashboard;
/// `pushgate demo` in a browser.
mod demo;
/// A wall clock that the test sets.
mod clock;
/// Diffusion servers behind the edge.
mod diffusion;
/// What an operator types: `check`, orders, `quick`.
mod commands;
/// A configuration in several files, with variables of the environment.
mod config_files;
/// Plugins that decide by path, address and value.
mod decisions;
/// Nodes found by DNS.
mod dns;
/// Shutdown and reload with live flows.
mod drain;
/// The program under test as a process.
mod edge;
/// `pushgate explain` compared with the running edge.
mod explain;
/// Bad inputs, row by row.
mod faults;
/// Eviction of a dead node's flows.
mod eviction;
/// How the edge ends flows, and at what rate.
mod goodbye;
/// Files that do not answer.
mod hanging_files;
/// Harness against itself: client to node, no edge.
mod harness;
/// HTTP/1 rules: fields, targets, versions, ends.
mod h1_rules;
/// Hidden bytes between a node and a client that stopped reading.
mod hidden;
/// Unusual but legal HTTP.
mod http;
/// HTTP/2 clients of HTTP/1 nodes.
mod http2;
/// Configurations written for the user, also from the servers' own files.
mod import;
/// The real clients, driven line by line.
mod js;
/// Sessions of Socket.IO and SignalR, whose ids stand inside JSON.
mod json_sessions;
/// Whom the edge trusts: revoked certificates, issuing authorities, clients' headers.
mod trust;
/// Keystores of Java's keytool, keys under a password.
mod keystores;
/// Half-closes, resets, storms and dead nodes at layer 4.
mod layer4;
/// Layer 4 with TLS that ends at the edge, a wildcard bind, assignments that expire.
mod layer4_routes;
/// Answers that are not complete at once, and their connections afterwards.
mod leaving;
/// The real Lightstreamer client straight to the TLCP node, without an edge.
mod lightstreamer;
/// Logs that cannot be written, or that somebody would flood.
mod logs;
/// Requests whose node is lost before it answers.
mod lost;
/// A host in its own network namespace, behind a cable that can be cut.
mod netns;
/// A push node that counts.
mod node;
/// Stapled OCSP responses, from a responder and from a file.
mod ocsp;
/// The guide's deployment options behind the edge.
mod options;
/// The life of the process: early signals, its file, its user, rivals.
mod life;
/// The program as a process.
mod program;
/// The PROXY protocol, in and out.
mod proxy_protocol;
/// Clients moved off nodes that have too many; assignments that expire.
mod rebalance;
/// TLS towards clients and nodes.
mod tls;
/// Rules of the TLS handshake, and the threads that perform it.
mod tls_rules;
/// TLS session resumption.
mod tls_sessions;
/// A node that speaks TLS, clients that inspect a handshake.
mod tls_node;
/// Stickiness by the id of a push session.
mod session;
/// Several edges that share a store.
mod site;
/// Certificates replaced under load.
mod reloads;
/// Nodes that a reload removed while they had flows.
mod removed;
/// Certificates whose time begins or ends while the edge runs.
mod renewal;
/// An edge with counting nodes for tests of the core.
mod setup;
/// One client cannot shut out all others.
mod share;
/// Descriptors and ports run out: the damage stays small.
mod shortage;
/// `pushgate simulate` compared with a real run.
mod simulate;
/// TLS passthrough by server name.
mod sni;
/// Who makes a flow wait, and the silence before a connection is lost.
mod slow;
/// Clients spread over the data threads.
mod spread;
/// Thousands of streamed answers and requests with bodies, cut from every side.
mod soak;
/// Sections of the guides, cited by code and tests.
mod sources;
/// Bytes pass at once, and silence ends nothing.
mod streaming;
/// The documents: configurations in them, links between them.
mod readme;
/// A node's Lightstreamer sessions.
mod tlcp;
/// Unix sockets of nodes, clients and operators.
mod unix_sockets;
/// Another process takes over the listening sockets.
mod upgrade;
/// Peers that vanish without a close.
mod vanish;
/// Loopback addresses reserved for one test.
mod vip;
/// Reconnect storms, and nodes that return.
mod storm;
/// WebSocket upgrades: no byte is lost, early or unrequested.
mod websocket;

/// How long a test waits for an event that should come at once; includes the delay of a loaded two-core
/// machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for `event` until [`DEADLINE`], then panics with `what`.
pub async fn deadline<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}
