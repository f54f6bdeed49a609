//! The plugin interface: a synchronous function from facts to a verdict or a header edit.
//!
//! In: a [`Flow`] (addresses, SNI, request head, time, a random number). Out: a [`Route`], a [`Recalled`]
//! assignment, or [`Edits`](crate::head::Edits) of a head. A plugin gets no socket and no `await`, and at most
//! [`BODY_PREFIX`] bytes of a body, so it cannot hold back a stream.
//! Source: Lightstreamer clustering §1 (no intermediate buffers), §2, §3.

mod claim;
mod forget;
mod plugin;
mod roles;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;

use crate::head::Head;
pub use claim::{Adopted, Claim, Peers, SharedTable, Used};
pub use forget::Forget;
pub use plugin::{Placed, Plugin, Plugins};
pub use roles::{HeadEditor, Preamble, Router, Sticky};

/// Most bytes of a body that plugins see, of a request and of an answer.
pub const BODY_PREFIX: usize = 4096;

/// Largest accepted difference between two clocks: an hour, as after a wrong change to summer time, and a
/// minute.
pub const SKEW: Duration = Duration::from_secs(3_660);

/// The facts of one flow. All are borrowed: building one allocates nothing.
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    /// Name of the listener that took the flow.
    pub listener: &'a str,
    /// The client's address: the TCP peer, or the source in the PROXY protocol header where that is accepted.
    pub client: SocketAddr,
    /// The TCP peer: the client itself, or a load balancer in front of the edge.
    pub peer: SocketAddr,
    /// The address by which shares are given to clients: the one that a trusted sender names, else that of
    /// `client`.
    pub source: IpAddr,
    /// The destination address the client reached (VIP).
    pub vip: SocketAddr,
    /// Facts of the TLS connection; `None`: the client speaks plain.
    pub tls: Option<TlsFacts<'a>>,
    /// The requested host: `:authority`, `Host` or (layer 4) SNI; lower case, without port and trailing dot.
    /// Empty if the client named none.
    pub host: &'a str,
    /// Head of the request as the client sent it, before any plugin's edits; `None` at layer 4.
    pub request: Option<&'a Head>,
    /// The first [`BODY_PREFIX`] bytes of the request's body, or the whole body if it is shorter. Empty
    /// unless a plugin [wants](Sticky::wants_body) them and they arrived in time.
    pub body: &'a [u8],
    /// Wall clock without its steps, for data that is signed and leaves this process. It never goes back.
    pub wall: SystemTime,
    /// Monotonic clock, for data remembered in this process: a jump of the wall clock expires nothing.
    pub now: Instant,
    /// Random number of this flow.
    pub random: u64,
    /// The node that served the previous request of this client connection.
    pub last: Option<NodeId>,
}

impl Flow<'_> {
    /// Returns the values of all request lines called `name`, in any case, in order. Skips a value that
    /// contains anything but visible ASCII, blanks and tabs.
    pub fn header_values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let lines = self.request.into_iter().flat_map(move |r| r.values(name));
        lines.filter_map(visible)
    }
}

/// Returns `value` as text; `None` unless it is only visible ASCII, blanks and tabs.
pub(crate) fn visible(value: &[u8]) -> Option<&str> {
    let fits = |b: &u8| matches!(b, b' '..=b'~' | b'\t');
    let text = value.iter().all(fits).then_some(value)?;
    std::str::from_utf8(text).ok()
}

/// Facts of a TLS connection that ends at the edge, or passes through with its server name read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFacts<'a> {
    /// Server name that the client sent.
    pub sni: Option<&'a str>,
    /// Protocol version as OpenSSL names it (`TLSv1.3`); empty where TLS is passed through.
    pub version: &'a str,
    /// The client's certificate, if the client sent one.
    pub client: Option<ClientFacts<'a>>,
}

/// Facts of a client's certificate. Each is safe to put into a header: visible ASCII and blanks.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts<'a> {
    /// The subject: `CN=alice,O=Example` (RFC 4514).
    pub subject: &'a str,
    /// The issuer, in the same form.
    pub issuer: &'a str,
    /// Serial number, hexadecimal.
    pub serial: &'a str,
    /// Subject alternative names: `DNS:…`, `email:…`, `URI:…`.
    pub sans: &'a [String],
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: &'a str,
    /// Why verification failed; `None`: the certificate was verified.
    pub failure: Option<&'a str>,
}

/// A node's identity: a hash of its name. It is the same in every process and after every reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// Returns the identity of the node called `name`.
    pub fn of(name: &str) -> Self {
        use std::hash::Hasher;
        let mut h = siphasher::sip::SipHasher13::new_with_keys(0x7075_7368, 0x6761_7465);
        h.write(name.as_bytes());
        NodeId(h.finish())
    }
}

/// A pool's identity; a hash of its name as for [`NodeId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u64);

impl PoolId {
    /// Returns the identity of the pool called `name`.
    pub fn of(name: &str) -> Self {
        PoolId(NodeId::of(name).0)
    }
}

/// The destination of a flow, as `to:` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The flow is balanced (and stuck) among the nodes of a pool.
    Pool(PoolId),
    /// The flow is pinned to one node; no stickiness applies.
    Node(NodeId),
}

/// A plugin's verdict on where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The flow goes to a pool or a node.
    To(Target),
    /// The edge answers with this status (layer 7), or closes the connection (layer 4).
    Refuse(StatusCode),
    /// The edge answers with a redirect to this location.
    Redirect(StatusCode, String),
}

/// A client's earlier assignment, as a stickiness plugin remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The node the client is stuck to. It may be Down or no longer configured: the core checks.
    pub node: NodeId,
    /// Age of the assignment since it was learned; zero if it was computed.
    pub age: Duration,
    /// Whether the assignment was remembered. `false`: it was computed from the client's address or value
    /// (`mode: hash`). It is then no evidence of an earlier flow, so the core must not use a Draining
    /// node.
    pub remembered: bool,
    /// The mark by which a rebalance finds the assignment; `None`: it is computed, so it cannot be forgotten.
    pub mark: Option<Mark>,
    /// Most live flows that the node serves under this mark; `None`: any number.
    pub max_flows: Option<NonZeroUsize>,
}

/// Identifies an assignment to a rebalance. Kept small, because every live flow carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// A number that is evenly spread and the same on every edge: a token's salt, or the hash of an address.
    pub id: u64,
    /// When the assignment was learned, in seconds since 1970.
    pub learned: u64,
    /// How a rebalance forgets the assignment.
    pub by: Forgotten,
    /// The rest of the assignment's `max_age`, if `cut_at_max_age` ends the flow with it.
    pub cut_after: Option<Duration>,
}

/// How a rebalance forgets an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Only by a [`Forget`] rule: the client carries the assignment (a token).
    Rule,
    /// By name, with [`Sticky::forget_client`]: the edge keeps the assignment in a table, or nobody keeps it.
    Name,
}

impl Mark {
    /// Returns the mark of a flow that no plugin remembers. Closing the flow is enough to move its client.
    pub fn of_flow(random: u64, learned: u64) -> Self {
        Mark {
            id: random,
            learned,
            by: Forgotten::Name,
            cut_after: None,
        }
    }
}

/// How the core chose a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A route pins the flow to the node.
    Pinned,
    /// A plugin recalled the node, or the previous request of the client connection went there.
    Recalled {
        /// Name of the plugin that recalled the node; `connection` for the previous request.
        by: &'static str,
        /// Age of the assignment.
        age: Duration,
    },
    /// The balancer chose the node.
    Balanced,
    /// The balancer chose the node although the client may be stuck, because the request begins a session.
    /// The new assignment replaces what plugins remember of the client.
    Rebalanced,
}

/// The node a flow got.
#[derive(Clone, Copy, Debug)]
pub struct Assignment<'a> {
    /// The pool from which the node was chosen; `None` if pinned.
    pub pool: Option<PoolId>,
    /// The node.
    pub node: NodeId,
    /// The node's name in the configuration.
    pub node_name: &'a str,
    /// How the node was chosen.
    pub how: How,
}

/// Returns `t` in whole seconds since 1970; 0 for earlier times.
pub fn unix_seconds(t: SystemTime) -> u64 {
    t.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// A header edit failed because the value would not be a legal header. The flow ends with a 500.
pub type EditError = Box<dyn std::error::Error + Send + Sync>;

/// Observes a node's answer to a flow. It gets copies of bytes that have already passed, so it cannot hold a
/// byte back. Lives until the flow leaves the node.
pub trait Watch: Send + Sync {
    /// Gets the head of the final answer, or of the 101, as the node sent it, with its empty line.
    fn head(&mut self, _head: &[u8], _now: Instant) {}

    /// Gets the next bytes of the body without its framing, [`BODY_PREFIX`] in all. Of a WebSocket it gets
    /// the uncompressed text messages, each preceded by a line end. Returns whether it needs more bytes.
    fn body(&mut self, bytes: &[u8], now: Instant) -> bool;

    /// Returns the mark of the assignment learned from this answer; `None`: nothing learned so far.
    fn mark(&self) -> Option<Mark> {
        None
    }

    /// Reacts to a rebalance that closes the flow: its client must not come back to this node.
    fn forget(&mut self) {}

    /// Reacts to the flow leaving the node.
    fn ended(&mut self, _now: Instant) {}
}
