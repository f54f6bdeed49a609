//! What a plugin is: a synchronous function of facts to a verdict or a header edit.
//!
//! In: a [`Flow`] (addresses, SNI, request head, time, a random number). Out: a [`Route`], a
//! [`Recalled`] assignment, or [`Edits`] of a head. No body, no socket, no `await`: a plugin cannot
//! hold back a byte. Source: Lightstreamer clustering §1 (no intermediate buffers), §2, §3.

mod forget;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;

use crate::head::{Edits, Head};
pub use forget::Forget;

/// Most bytes of a body that plugins are shown, of a request and of an answer.
pub const BODY_PREFIX: usize = 4096;

/// How far two clocks may be apart: an hour, as after a wrong change to summer time, and a minute.
pub const SKEW: Duration = Duration::from_secs(3_660);

/// The facts of one flow, all borrowed: building one costs no allocation.
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    /// Name of the listener that took the flow.
    pub listener: &'a str,
    /// The client as far as we trust it: TCP peer, or the PROXY protocol's source where accepted.
    pub client: SocketAddr,
    /// The TCP peer: the client itself, or the balancer in front of us.
    pub peer: SocketAddr,
    /// The destination address the client reached (VIP).
    pub vip: SocketAddr,
    /// Facts of the TLS connection; `None` where the client speaks plain.
    pub tls: Option<TlsFacts<'a>>,
    /// Host the flow asks for: `:authority`, `Host` or (layer 4) SNI; lower case, without port and
    /// trailing dot. Empty when there is none.
    pub host: &'a str,
    /// Head of the request as the client sent it, without any plugin's edits; `None` at layer 4.
    pub request: Option<&'a Head>,
    /// The first [`BODY_PREFIX`] bytes of the request's body, or all of it if it is shorter; empty
    /// unless a plugin [wants](Plugin::wants_body) it and it came in time.
    pub body: &'a [u8],
    /// Wall clock without its steps, for what is signed and leaves this process: it never goes back.
    pub wall: SystemTime,
    /// Monotonic clock, for what is remembered here: a jump of the wall clock expires nothing.
    pub now: Instant,
    /// Random number of this flow.
    pub random: u64,
    /// The node that served the request before on this client connection.
    pub last: Option<NodeId>,
}

impl Flow<'_> {
    /// The values of all request lines called `name`, in any case, in order. A value is left out
    /// unless it is visible ASCII, blanks and tabs.
    pub fn header_values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let lines = self.request.into_iter().flat_map(move |r| r.values(name));
        lines.filter_map(visible)
    }
}

/// `value` as text; `None` unless it is visible ASCII, blanks and tabs.
pub(crate) fn visible(value: &[u8]) -> Option<&str> {
    let fits = |b: &u8| matches!(b, b' '..=b'~' | b'\t');
    let text = value.iter().all(fits).then_some(value)?;
    std::str::from_utf8(text).ok()
}

/// Facts of a TLS connection that ends here, or is passed through with its server name read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFacts<'a> {
    /// Server name the client sent.
    pub sni: Option<&'a str>,
    /// Protocol version as OpenSSL names it (`TLSv1.3`); empty where TLS is passed through.
    pub version: &'a str,
    /// The client's certificate, if it showed one.
    pub client: Option<ClientFacts<'a>>,
}

/// Facts of a client's certificate. All are fit for a header: visible ASCII and blanks.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts<'a> {
    /// Whom it names: `CN=alice,O=Example` (RFC 4514).
    pub subject: &'a str,
    /// Who issued it, in the same form.
    pub issuer: &'a str,
    /// Serial number, hexadecimal.
    pub serial: &'a str,
    /// Other names: `DNS:…`, `email:…`, `URI:…`.
    pub sans: &'a [String],
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: &'a str,
    /// Why it was not believed; `None`: it was verified.
    pub failure: Option<&'a str>,
}

/// A node's identity: a hash of its name, the same in every process and after every reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// Identity of the node called `name`.
    pub fn of(name: &str) -> Self {
        use std::hash::Hasher;
        let mut h = siphasher::sip::SipHasher13::new_with_keys(0x7075_7368, 0x6761_7465);
        h.write(name.as_bytes());
        NodeId(h.finish())
    }
}

/// A pool's identity, as [`NodeId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u64);

impl PoolId {
    /// Identity of the pool called `name`.
    pub fn of(name: &str) -> Self {
        PoolId(NodeId::of(name).0)
    }
}

/// Where a flow may be sent: what `to:` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Balanced (and stuck) among the nodes of a pool.
    Pool(PoolId),
    /// Pinned straight to one node; no stickiness applies.
    Node(NodeId),
}

/// A plugin's verdict on where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a pool or a node.
    To(Target),
    /// Answered by us with this status (layer 7), or closed (layer 4).
    Refuse(StatusCode),
    /// Answered by us with a redirect to this location.
    Redirect(StatusCode, String),
}

/// A client's earlier assignment, as a stickiness plugin remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The node the client is stuck to. It may be Down or gone: the core checks.
    pub node: NodeId,
    /// Age of the assignment, counted from when it was learned; zero where it was computed.
    pub age: Duration,
    /// Whether it was remembered. `false`: computed from the address alone (`sticky_ip` with
    /// `mode: hash`), so it says nothing of an earlier flow and a Draining node must not be used.
    pub remembered: bool,
    /// What a rebalance knows the assignment by; `None`: it cannot be forgotten (it is computed).
    pub mark: Option<Mark>,
}

/// What a rebalance knows an assignment by. Small: every live flow carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Spread evenly and the same on every edge: a token's salt, a hash of an address.
    pub id: u64,
    /// When the assignment was learned, in seconds since 1970.
    pub learned: u64,
    /// How it is forgotten.
    pub by: Forgotten,
    /// What is left of its `max_age`, where `cut_at_max_age` says that the flow ends with it.
    pub cut_after: Option<Duration>,
}

/// How an assignment is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// By a [`Forget`] rule alone: the client carries it (a token).
    Rule,
    /// By name, with [`Plugin::forget_client`]: it is kept here (a table), or nowhere.
    Name,
}

impl Mark {
    /// The mark of a flow that no plugin remembers: closing it is enough to move its client.
    pub fn of_flow(random: u64, learned: u64) -> Self {
        Mark {
            id: random,
            learned,
            by: Forgotten::Name,
            cut_after: None,
        }
    }
}

/// How the core came to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Routed straight to the node.
    Pinned,
    /// Stuck; `by` is the name of the plugin that recalled it and `age` how old the assignment is.
    Recalled {
        /// Name of the plugin that recalled the node.
        by: &'static str,
        /// Age of the assignment.
        age: Duration,
    },
    /// Chosen by the balancer.
    Balanced,
    /// Chosen by the balancer although the client may be stuck: the request begins a session. What
    /// was remembered of the client gives way.
    Rebalanced,
}

/// The node a flow got.
#[derive(Clone, Copy, Debug)]
pub struct Assignment<'a> {
    /// The pool it was chosen from; `None` if pinned.
    pub pool: Option<PoolId>,
    /// The node.
    pub node: NodeId,
    /// The node's name in the configuration.
    pub node_name: &'a str,
    /// How it was chosen.
    pub how: How,
}

/// Whole seconds since 1970; 0 for times before.
pub fn unix_seconds(t: SystemTime) -> u64 {
    t.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Failure of a header edit: the value would not be a legal header. The flow ends with a 500.
pub type EditError = Box<dyn std::error::Error + Send + Sync>;

/// Looks on as a node answers a flow, without holding a byte back: it is shown copies of what has
/// passed. Lives until the flow leaves the node.
pub trait Watch: Send + Sync {
    /// Shows the head of the final answer or of the 101 as the node sent it, with its empty line.
    fn head(&mut self, _head: &[u8], _now: Instant) {}

    /// Shows the next bytes of the body, free of its framing, [`BODY_PREFIX`] in all; of a WebSocket
    /// those of its uncompressed text messages, each with a line end before it. Answers whether more
    /// are of use.
    fn body(&mut self, bytes: &[u8], now: Instant) -> bool;

    /// What a rebalance knows the assignment by that was learned here; `None`: none was, so far.
    fn mark(&self) -> Option<Mark> {
        None
    }

    /// The flow is closed by a rebalance: its client must not come back to this node.
    fn forget(&mut self) {}

    /// The flow has left the node.
    fn ended(&mut self, _now: Instant) {}
}

/// Decides. Every method has a default that says nothing; a plugin writes the ones it needs.
pub trait Plugin: Send + Sync {
    /// The plugin's word: file name, YAML key and metrics label.
    fn name(&self) -> &'static str;

    /// Whether a TLS connection that is passed through must have its server name read first.
    fn wants_sni(&self) -> bool {
        false
    }

    /// Says where the flow goes; the first plugin that answers wins.
    fn route(&self, _: &Flow<'_>) -> Option<Route> {
        None
    }

    /// Path below the plugin's block of the entry by which [`Plugin::route`] decides on the flow;
    /// empty: the block as a whole. Asked by `pushgate explain`.
    fn rule(&self, _: &Flow<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Whether the plugin routes by this very host name (normalised). A request for one that the
    /// certificate shown does not cover is answered 421 (RFC 9110 §15.5.20).
    fn routes_host(&self, _host: &str) -> bool {
        false
    }

    /// Recalls the node of `pool` this client is stuck to; the first usable answer wins.
    fn recall(&self, _: &Flow<'_>, _pool: PoolId) -> Option<Recalled> {
        None
    }

    /// Learns the node a flow is about to get from `pool`, before it is connected; called for every
    /// flow of a pool whatever `how` says, never for a pinned one. Each call is paired with one
    /// [`Plugin::ended`]; a flow that is retried elsewhere ends and is learned again.
    ///
    /// Answers another node where the client was given one meanwhile (two first flows at once) or
    /// must have one (hash); the core then sends the flow there. `usable` says whether the core
    /// would (of the pool, Up, not tried yet by this flow); it must not call back into plugins.
    fn learn(
        &self,
        _: &Flow<'_>,
        _pool: PoolId,
        _: &Assignment<'_>,
        _usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        None
    }

    /// Whether the beginning of the request's body would help to recall the client's node, asked with
    /// the head alone. The flow then waits for it, within a deadline.
    fn wants_body(&self, _: &Flow<'_>) -> bool {
        false
    }

    /// Watches how the node of an assignment answers; called for every try of a flow of `pool`.
    fn watch(&self, _: &Flow<'_>, _pool: PoolId, _: &Assignment<'_>) -> Option<Box<dyn Watch>> {
        None
    }

    /// Address under which this plugin files the flow; the core keeps it and hands it to
    /// [`Plugin::ended`], when the head is gone.
    fn client(&self, flow: &Flow<'_>) -> IpAddr {
        flow.client.ip()
    }

    /// The client's address by the word of a sender whose `X-Forwarded-For` the plugin believes; `None`: it
    /// believes nobody. The first plugin that answers says whose turn it is in a queue, and whose flows are
    /// counted.
    fn trusted_client(&self, _: &Flow<'_>) -> Option<IpAddr> {
        None
    }

    /// A flow that was learned has ended, so that a table can tell entries with live flows.
    /// `client` is what [`Plugin::client`] said of it.
    fn ended(&self, _client: IpAddr, _pool: PoolId, _now: Instant) {}

    /// Forgets a share of the assignments, because their node is rebalanced. The rule may come
    /// again with a larger share.
    fn forget(&self, _: &Forget) {}

    /// What a rebalance knows the assignment by that this flow got; `None`: the plugin remembers
    /// nothing of it. Asked after [`Plugin::learn`], where the plugin that recalled it did not say.
    fn mark(&self, _: &Flow<'_>, _pool: PoolId, _: &Assignment<'_>) -> Option<Mark> {
        None
    }

    /// Whether the plugin sticks clients to nodes. On a listener where none does, a client connection
    /// stays on its node as long as that is Up.
    fn sticks(&self) -> bool {
        false
    }

    /// Whether assignments are computed, so that a client that comes back gets the same node
    /// whatever is forgotten.
    fn computes(&self) -> bool {
        false
    }

    /// Forgets one client's assignment to `node`: its flow is closed by a rebalance, and it must
    /// not come back to that node. `client` is what [`Plugin::client`] said of the flow.
    fn forget_client(&self, _client: IpAddr, _pool: PoolId, _node: NodeId) {}

    /// Appends the bytes the node reads before the client's (PROXY protocol). Asked when an upstream
    /// connection is opened; it may carry many requests, so the flow is shown without its head.
    fn preamble(&self, _: &Flow<'_>, _: &mut Vec<u8>) {}

    /// Edits the head on its way to the node. The edits hold those of the plugins before it.
    ///
    /// Errors: a name or value is not legal.
    fn request(&self, _: &Flow<'_>, _: &Assignment<'_>, _: &mut Edits) -> Result<(), EditError> {
        Ok(())
    }

    /// Edits the head on its way to the client; also runs on a 101. Errors as for
    /// [`Plugin::request`].
    fn response(&self, _: &Flow<'_>, _: &Assignment<'_>, _: &mut Edits) -> Result<(), EditError> {
        Ok(())
    }
}
