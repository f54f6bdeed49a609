//! Chooses the node of a flow, and prepares the dialer to it, at layers 7 and 4.
//!
//! In: an exchange, and the head of its request at layer 7. Out: a decision, entered at its node; a
//! [`Dialer`]; a [`Tap`]. Source: Lightstreamer clustering §2.1, §3.1.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pushgate_plugins::api::{Flow, NodeId};
use pushgate_plugins::head::Head;
use pushgate_plugins::host;

use super::flow::Exchange;
use super::request_line::RequestLine;
use super::response_tap::ResponseTap;
use crate::balance::Pool;
use crate::balance::wait::WaitError;
use crate::config::defaults;
use crate::observe::metrics;
use crate::route::{Assigned, Decision};
use crate::stream::client_share::UpstreamCharge;
use crate::stream::side::Tap;
use crate::stream::socket::{self, Options};
use crate::upstream::Node;
use crate::upstream::connect::Dialer;

/// Waits in the queue of `pool`, whose nodes are all at their limits. When the flow's turn comes, it is
/// decided again. Returns `Wait` if the flow waited too long or the queue was full.
///
/// Errors: the client has left.
pub async fn wait(
    ex: &Exchange,
    head: Option<&Head>,
    pool: Arc<Pool>,
    left: impl Future<Output = ()>,
) -> Result<Decision, ClientLeft> {
    let decide = || match decide(ex, head, true) {
        Decision::Wait(_) => None,
        decision => Some(decision),
    };
    match pool.in_turn(ex.client(head), left, decide).await {
        Ok(decision) => Ok(decision),
        Err(WaitError::Gone) => Err(ClientLeft),
        Err(WaitError::Full | WaitError::Late) => Ok(Decision::Wait(pool)),
    }
}

/// The client left while its flow waited in a queue.
#[derive(Debug)]
pub struct ClientLeft;

/// Chooses a node for the flow, and enters the flow there. Without a `head` the server name decides.
/// `in_turn`: the flow has waited in the queue, so it passes those that still wait.
pub fn decide(ex: &Exchange, head: Option<&Head>, in_turn: bool) -> Decision {
    with_facts(ex, head, |facts, tried| {
        let decision = match in_turn {
            true => ex.table.decide_in_turn(facts, tried),
            false => ex.table.decide(facts, tried),
        };
        enter(ex, facts, &decision);
        decision
    })
}

/// Enters the flow at its node, or counts that the node refused it.
pub fn enter(ex: &Exchange, facts: &Flow<'_>, decision: &Decision) {
    match decision {
        Decision::Node(assigned) => {
            let learned = assigned.pool.as_ref().map(|_| ex.table.filed(facts));
            ex.assign(assigned.clone(), learned);
        }
        Decision::Full(node, _) => refused(node, "max_flows_hard"),
        Decision::TooMany(node) => refused(node, "cookie"),
        _ => {}
    }
}

/// Calls `with` with what the plugins are told of the flow, and the nodes that were tried for it.
pub fn with_facts<T>(
    ex: &Exchange,
    head: Option<&Head>,
    with: impl FnOnce(&Flow<'_>, &[NodeId]) -> T,
) -> T {
    let (random, tried, body) = {
        let record = ex.record.lock();
        let tries = record.tries.as_ref();
        let (tried, body) = tries.map_or_else(Default::default, |t| {
            (t.tried.clone(), t.body_prefix.clone())
        });
        (record.random, tried, body)
    };
    let host = Host::of(ex, head);
    with(&facts(ex, &host, head, random, &body), &tried)
}

/// Counts a stuck or pinned flow that its node does not get.
fn refused(node: &Node, limit: &str) {
    let labels = [node.name.as_str(), limit];
    metrics::get()
        .stuck_refused
        .with_label_values(&labels)
        .inc();
}

/// Makes the dialer to the node of `assigned`.
pub fn dialer(ex: &Exchange, head: Option<&Head>, assigned: &Assigned) -> Dialer {
    let max_hidden = ex.conn.listener.max_hidden.load(Ordering::Relaxed);
    let pool = assigned.pool.as_ref();
    // The preamble captures neither exchange nor head: the connection may carry later requests.
    let (conn, table) = (ex.conn.clone(), ex.table.clone());
    let (host, wall) = (Host::of(ex, head), ex.wall);
    let random = ex.record.lock().random;
    let tcp = assigned.node.tcp();
    Dialer {
        charge: charge(ex, head, assigned),
        node: assigned.node.clone(),
        flow: ex.flow.clone(),
        options: Options {
            keepalive: tcp.keepalive.0,
            receive_buffer: Some(socket::receive_buffer(max_hidden)),
            bulk: ex.conn.listener.bulk.load(Ordering::Relaxed),
            source: assigned.node.source(),
        },
        user_timeout: tcp.user_timeout.0,
        timeout: pool.map_or(defaults::CONNECT_TIMEOUT.0, |p| p.connect_timeout),
        preamble: Box::new(move |out| {
            let facts = conn.facts(wall, host.as_str(), None, random);
            let plugins = table.plugins.preambles.iter();
            plugins.for_each(|p| p.preamble(&facts, out));
        }),
    }
}

/// Charges a connection to the node of `assigned` to the flow's client; `None`: the client holds its share. Its
/// idle upstreams then give way to the flow.
fn charge(ex: &Exchange, head: Option<&Head>, assigned: &Assigned) -> Option<UpstreamCharge> {
    let share = ex.conn.listener.share_of(ex.client(head));
    let node = assigned.node.id.0;
    share.dial(node).or_else(|| {
        ex.conn.idle_upstreams.close_all();
        share.dial(node)
    })
}

/// Makes the tap that shows the node's answer to the plugins that watch it; `None`: no plugin does.
pub fn tap(ex: &Exchange, head: Option<&Head>, assigned: &Assigned) -> Option<Box<dyn Tap>> {
    if assigned.pool.is_none() || ex.table.plugins.sticky.is_empty() {
        return None;
    }
    let (random, body) = {
        let record = ex.record.lock();
        let tries = record.tries.as_ref();
        let body = tries.map_or_else(Vec::new, |t| t.body_prefix.clone());
        (record.random, body)
    };
    let host = Host::of(ex, head);
    let facts = facts(ex, &host, head, random, &body);
    let watches = ex.table.watch(&facts, assigned);
    let to_head = head.is_some_and(|h| h.method() == "HEAD");
    ResponseTap::tap(watches, to_head, &ex.flow, &assigned.node)
}

/// Returns what the plugins are told of the flow.
fn facts<'a>(
    ex: &'a Exchange,
    host: &'a Host,
    head: Option<&'a Head>,
    random: u64,
    body: &'a [u8],
) -> Flow<'a> {
    let facts = ex.facts(host.as_str(), head, random);
    Flow {
        body,
        source: ex.table.client(&facts),
        ..facts
    }
}

/// The normalised host of the request; at layer 4 the server name.
enum Host {
    Asked(RequestLine),
    Named(String),
}

impl Host {
    fn of(ex: &Exchange, head: Option<&Head>) -> Self {
        if head.is_some() {
            return Host::Asked(ex.record.lock().line.clone());
        }
        let sni = ex.conn.tls.as_ref().and_then(|t| t.sni.as_deref());
        Host::Named(host::normalise(sni.unwrap_or_default()).into_owned())
    }

    fn as_str(&self) -> &str {
        match self {
            Host::Asked(line) => line.host(),
            Host::Named(name) => name,
        }
    }
}
