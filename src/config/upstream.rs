//! The blocks of nodes and pools: addresses, weights, balancing, health checks.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use pushgate_plugins::bounds::AboveZero;
use serde::Deserialize;

use super::units::{Rate, Share, Span};
use super::{
    Address, Agent, Discover, NoNode, NodeTcp, NodeTls, OnLost, SourceAddress, Statuses, bounds,
    defaults, failure,
};

/// One push server at one address and port.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its address or host name, and its port.
    pub address: Address,
    /// Its weight relative to the other nodes of a pool; with 0 it gets no balanced flows.
    #[serde(
        default = "defaults::weight",
        deserialize_with = "bounds::Weight::read"
    )]
    pub weight: u32,
    /// The node that is another socket of the same server: the balancer counts the flows of both together.
    /// Absent: a server of its own.
    #[serde(default)]
    pub server: Option<String>,
    /// Its own health check; absent: that of the pools it is in.
    #[serde(default)]
    pub health: Option<Health>,
    /// TLS towards it; absent: plain.
    #[serde(default)]
    pub tls: Option<NodeTls>,
    /// Options of the sockets towards it.
    #[serde(default)]
    pub tcp: NodeTcp,
    /// Its own `source`; absent: that of the pools it is in.
    #[serde(default)]
    pub source: Option<SourceAddress>,
    /// Whether it gets balanced flows only while no other node of a pool can take them.
    #[serde(default)]
    pub backup: bool,
    /// Its own `max_flows`; absent: that of the pools it is in.
    #[serde(default)]
    pub max_flows: Option<NonZeroUsize>,
    /// Its own `max_flows_hard`; absent: that of the pools it is in.
    #[serde(default)]
    pub max_flows_hard: Option<NonZeroUsize>,
    /// Its own `admit_rate`; absent: that of the pools it is in.
    #[serde(default)]
    pub admit_rate: Option<Rate>,
    /// Its own `slow_start`; absent: that of the pools it is in.
    #[serde(default)]
    pub slow_start: Option<Rate>,
    /// Its own `evict_rate`; absent: that of the pools it is in.
    #[serde(default)]
    pub evict_rate: Option<Rate>,
    /// How DNS found it; `None` if its address is in the file.
    #[serde(skip)]
    pub found: Option<Found>,
}

impl Node {
    /// Makes a node at this address, with defaults for everything else.
    pub fn at(address: SocketAddr) -> Self {
        Node {
            address: Address::Socket(address),
            weight: defaults::WEIGHT,
            server: None,
            health: None,
            tls: None,
            tcp: NodeTcp::default(),
            source: None,
            backup: false,
            max_flows: None,
            max_flows_hard: None,
            admit_rate: None,
            slow_start: None,
            evict_rate: None,
            found: None,
        }
    }
}

/// How DNS found a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name that was looked up; with its port, unless SRV records gave it.
    pub source: String,
    /// Whether it is no longer in the answer.
    pub leaving: bool,
}

/// Nodes among which flows are balanced.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Names of its nodes.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Nodes that DNS finds, in addition to `nodes`.
    #[serde(default)]
    pub discover: Option<Discover>,
    /// How a node is chosen for a flow that is not stuck.
    #[serde(default)]
    pub balance: Balance,
    /// Health check of its nodes; absent: nodes are Up until a connect fails.
    #[serde(default)]
    pub health: Option<Health>,
    /// What happens to the live flows of a node that goes Down.
    #[serde(default)]
    pub on_down: OnDown,
    /// Deadline of connecting to a node.
    #[serde(
        default = "defaults::connect_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub connect_timeout: Span,
    /// Other nodes tried after a failed connect.
    #[serde(
        default = "defaults::retries",
        deserialize_with = "bounds::Retries::read"
    )]
    pub retries: u32,
    /// Answer when no node can take the flow.
    #[serde(default)]
    pub no_node: NoNode,
    /// Answer when a node is lost before it answers a request that may not be repeated.
    #[serde(default)]
    pub on_lost: OnLost,
    /// Other nodes tried for a request that a node got and did not answer, if it may be repeated: an
    /// idempotent one, or one of `retry_on`. 0 to 10; 0 (`off` in the file): none.
    #[serde(
        default = "defaults::retry_unanswered",
        deserialize_with = "failure::off_or_number"
    )]
    pub retry_unanswered: u32,
    /// Paths of requests that may be repeated on another node whatever their method, with bodies up to
    /// 64 KiB. Compared whole, without query; 64 at most.
    #[serde(default)]
    pub retry_on: Vec<String>,
    /// Address of this machine from which its nodes are connected to; absent: the kernel chooses.
    #[serde(default)]
    pub source: Option<SourceAddress>,
    /// Live flows at which the balancer gives a node no more; absent: no limit.
    #[serde(default)]
    pub max_flows: Option<NonZeroUsize>,
    /// Live flows at which a node gets none at all, stuck and pinned ones included; at least `max_flows`; absent:
    /// no limit, because a stuck client has its session nowhere else.
    #[serde(default)]
    pub max_flows_hard: Option<NonZeroUsize>,
    /// Most flows a second the balancer gives one node; absent: no limit.
    #[serde(default)]
    pub admit_rate: Option<Rate>,
    /// The same for a node that returned or joined, until it has caught up; absent: no slow start.
    #[serde(default)]
    pub slow_start: Option<Rate>,
    /// Flows with an answer that are closed in a second when a node goes Down; absent: all at once.
    #[serde(default)]
    pub evict_rate: Option<Rate>,
    /// Most flows that wait while every node is at its limit.
    #[serde(default = "defaults::queue", deserialize_with = "bounds::Queue::read")]
    pub queue: u32,
    /// Longest time that a flow waits in the queue.
    #[serde(
        default = "defaults::queue_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub queue_timeout: Span,
    /// How clients move off nodes that have too many.
    #[serde(default)]
    pub rebalance: Rebalance,
    /// Paths of requests that begin a session. Such a request is balanced although its client is stuck; the
    /// client then sticks to the new node.
    #[serde(default)]
    pub rebalance_on: Vec<String>,
}

/// How clients move off nodes that have too many: settings of automatic rebalancing, and defaults of an order
/// at the admin endpoint.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rebalance {
    /// Whether a node's return starts a rebalance.
    #[serde(default)]
    pub auto: bool,
    /// Time from a node's last return to the rebalance: the node may flap, and new clients may be enough.
    #[serde(default = "defaults::rebalance_delay")]
    pub delay: Span,
    /// Clients moved in a second.
    #[serde(default = "defaults::rebalance_rate")]
    pub rate: Rate,
    /// Part of its share that a node may keep beyond it.
    #[serde(default = "defaults::rebalance_tolerance")]
    pub tolerance: Share,
    /// Whether live flows are closed; else assignments are only forgotten.
    #[serde(default)]
    pub close: bool,
}

impl Default for Rebalance {
    fn default() -> Self {
        Rebalance {
            auto: false,
            delay: defaults::REBALANCE_DELAY,
            rate: defaults::REBALANCE_RATE,
            tolerance: defaults::REBALANCE_TOLERANCE,
            close: false,
        }
    }
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The node with the fewest live flows for its weight. Streams are long, so counts are the load.
    #[default]
    LeastFlows,
    /// Each in turn, by weight.
    RoundRobin,
    /// The better of two nodes drawn by weight.
    Random,
    /// By the client's address (rendezvous hashing): no state, and few clients move when a node leaves.
    Hash,
}

impl Balance {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Balance::LeastFlows => "least_flows",
            Balance::RoundRobin => "round_robin",
            Balance::Random => "random",
            Balance::Hash => "hash",
        }
    }
}

/// What happens to the live flows of a node that goes Down.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnDown {
    /// They are closed at once, so that clients go elsewhere.
    #[default]
    Evict,
    /// They are left to end by themselves.
    Keep,
}

/// An active health check: `tcp`, `http`, `tls`, or `http` over `tls`.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The check passes if it connects.
    #[serde(default)]
    pub tcp: Option<TcpCheck>,
    /// The check passes if a GET has the expected status and text.
    #[serde(default)]
    pub http: Option<HttpCheck>,
    /// The check passes if a TLS handshake succeeds; for nodes to which TLS is passed through.
    #[serde(default)]
    pub tls: Option<TlsCheck>,
    /// Version (1 or 2) of the PROXY protocol header each check begins with, for a port that refuses
    /// connections without one. It says `LOCAL`, or `UNKNOWN` in version 1.
    #[serde(default, deserialize_with = "bounds::ProxyVersion::read")]
    pub proxy_protocol: Option<u8>,
    /// Period, jittered by 10 %.
    #[serde(
        default = "defaults::health_interval",
        deserialize_with = "AboveZero::read"
    )]
    pub interval: Span,
    /// Period while checks contradict the state; absent: a quarter of `interval`.
    #[serde(default, deserialize_with = "AboveZero::read")]
    pub fast_interval: Option<Span>,
    /// Deadline of one check.
    #[serde(
        default = "defaults::health_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub timeout: Span,
    /// Passed checks in a row that make a node Up.
    #[serde(
        default = "defaults::health_rise",
        deserialize_with = "bounds::Row::read"
    )]
    pub rise: u32,
    /// Failed checks in a row that make a node Down.
    #[serde(
        default = "defaults::health_fall",
        deserialize_with = "bounds::Row::read"
    )]
    pub fall: u32,
    /// Longest time a node that flaps is held Down; 0: it is not held.
    #[serde(default = "defaults::hold_down")]
    pub hold_down: Span,
    /// Passive health; absent: a failed flow only asks for a check.
    #[serde(default)]
    pub passive: Option<Passive>,
    /// A program that says in words how the node does; absent: none.
    #[serde(default)]
    pub agent: Option<Agent>,
}

/// Passive health: failed flows make a node Down although its checks pass.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Passive {
    /// Failed flows in a row: connect refused, reset or timed out, or reset before an answer.
    #[serde(
        default = "defaults::failures",
        deserialize_with = "bounds::Failures::read"
    )]
    pub failures: u32,
    /// Share of statuses from 500, of 20 or more answers in 10 s, above which it goes Down; absent: none.
    #[serde(default)]
    pub errors: Option<Share>,
}

/// The check passes if a TLS handshake succeeds.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TlsCheck {
    /// Name to verify, sent as SNI; absent: the address's IP, which is not sent.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Verifies certificate and name against the system's authorities.
    #[serde(default)]
    pub verify: bool,
    /// Another port than the node's.
    #[serde(default, deserialize_with = "bounds::Port::read")]
    pub port: Option<u16>,
}

/// The check passes if it connects.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// Another port than the node's.
    #[serde(default, deserialize_with = "bounds::Port::read")]
    pub port: Option<u16>,
}

/// The check passes if a GET has the expected status and text.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Target of the GET, such as `/lightstreamer/healthcheck`.
    pub path: String,
    /// Host header; default the node's address.
    #[serde(default)]
    pub host: Option<String>,
    /// Expected statuses; default 200.
    #[serde(default)]
    pub status: Statuses,
    /// Text that must be in the first 64 KiB of the body; absent: any body passes.
    #[serde(default)]
    pub expect: Option<String>,
    /// Another port than the node's.
    #[serde(default, deserialize_with = "bounds::Port::read")]
    pub port: Option<u16>,
}

impl Health {
    /// Returns the TCP check that follows a failed connect if no check is configured.
    pub fn tcp_default() -> Self {
        Health {
            tcp: Some(TcpCheck { port: None }),
            http: None,
            tls: None,
            proxy_protocol: None,
            interval: defaults::HEALTH_INTERVAL,
            fast_interval: None,
            hold_down: defaults::HOLD_DOWN,
            passive: None,
            agent: None,
            timeout: defaults::HEALTH_TIMEOUT,
            rise: defaults::HEALTH_RISE,
            fall: defaults::HEALTH_FALL,
        }
    }
}
