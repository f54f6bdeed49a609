//! Gets a flow its node and the connector to it, at both layers.
//!
//! In: an exchange, and the head of its request where there is one. Out: a decision, entered into its
//! node; a [`Dialer`]. Source: Lightstreamer clustering §2.1, §3.1.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pingora_http::RequestHeader;
use pushgate_plugins::api::Flow;
use pushgate_plugins::host;

use super::exchange::Exchange;
use crate::balance::Pool;
use crate::balance::wait::Refused;
use crate::config::defaults;
use crate::route::{Assigned, Decision};
use crate::stream::socket::{self, Options};
use crate::upstream::asked::Asked;
use crate::upstream::connect::Dialer;
use crate::upstream::onlooker::Onlooker;

/// Has the flow wait in `pool`, whose nodes are all at their limits, until its turn, when it is decided
/// again, or its client has `left`. `Wait` is the answer for a flow that has waited in vain.
///
/// Errors: the client has left.
pub async fn wait(
    ex: &Exchange,
    head: Option<&RequestHeader>,
    pool: Arc<Pool>,
    left: impl Future<Output = ()>,
) -> Result<Decision, Gone> {
    let decide = || match decide(ex, head, true) {
        Decision::Wait(_) => None,
        decision => Some(decision),
    };
    match pool.in_turn(ex.client(head), left, decide).await {
        Ok(decision) => Ok(decision),
        Err(Refused::Gone) => Err(Gone),
        Err(Refused::Full | Refused::Late) => Ok(Decision::Wait(pool)),
    }
}

/// The client has left while its flow waited.
#[derive(Debug)]
pub struct Gone;

/// Decides where the flow goes and enters it there. Without a `head` it goes by the server name.
pub fn decide(ex: &Exchange, head: Option<&RequestHeader>, in_turn: bool) -> Decision {
    let (random, tried, body) = {
        let mut record = ex.record.lock();
        let tries = record.tries();
        let (tried, body) = (tries.tried.clone(), tries.body_prefix.clone());
        (record.random, tried, body)
    };
    let host = host(ex, head);
    let facts = Flow {
        body: &body,
        ..ex.facts(&host, head, random)
    };
    let decision = match in_turn {
        true => ex.table.decide_in_turn(&facts, &tried),
        false => ex.table.decide(&facts, &tried),
    };
    if let Decision::Node(assigned) = &decision {
        let learned = assigned.pool.as_ref().map(|_| ex.table.filed(&facts));
        ex.assign(assigned.clone(), learned);
    }
    decision
}

/// The connector to the node of `assigned`.
pub fn dialer(ex: &Exchange, head: Option<&RequestHeader>, assigned: &Assigned) -> Dialer {
    let max_hidden = ex.conn.listener.max_hidden.load(Ordering::Relaxed);
    let pool = assigned.pool.as_ref();
    // Not the exchange: it holds the dialer. Nor the head: the connection may carry other requests.
    let (conn, table) = (ex.conn.clone(), ex.table.clone());
    let host = host(ex, head);
    let (random, body, framing) = {
        let mut record = ex.record.lock();
        let tries = record.tries();
        let (body, framing) = (tries.body_prefix.clone(), tries.request.clone());
        (record.random, body, framing)
    };
    let to_head = head.is_some_and(|h| h.method == http::Method::HEAD);
    let asked = Asked::new(to_head, framing);
    let facts = Flow {
        body: &body,
        ..ex.facts(&host, head, random)
    };
    let (watches, wall) = (table.watch(&facts, assigned), facts.wall);
    let tap = Onlooker::tap(watches, to_head, &ex.flow, &assigned.node);
    let tcp = assigned.node.tcp();
    Dialer {
        node: assigned.node.clone(),
        flow: ex.flow.clone(),
        affinity: ex.conn.affinity.clone(),
        asked,
        options: Options {
            keepalive: tcp.keepalive.0,
            receive_buffer: Some(socket::receive_buffer(max_hidden)),
        },
        user_timeout: tcp.user_timeout.0,
        timeout: pool.map_or(defaults::CONNECT_TIMEOUT.0, |p| p.connect_timeout),
        preamble: Box::new(move |out| {
            let facts = conn.facts(wall, &host, None, random);
            let plugins = table.plugins.iter();
            plugins.for_each(|p| p.preamble(&facts, out));
        }),
        read: socket::piece(max_hidden),
        tap: Mutex::new(tap),
        reused: AtomicBool::new(false),
    }
}

/// The host asked for, normalised; of a layer-4 flow the server name.
fn host(ex: &Exchange, head: Option<&RequestHeader>) -> String {
    if head.is_some() {
        return ex.record.lock().line.host().to_owned();
    }
    let sni = ex.conn.tls.as_ref().and_then(|t| t.sni.as_deref());
    host::normalise(sni.unwrap_or_default()).into_owned()
}
