//! Layer 4: a client connection is one flow, relayed as it is.
//!
//! Source: Lightstreamer clustering §1 ("Layer 4 (TCP)"), §3.1.1, §3.2.1.1, §3.2.2.1, for
//! several domains §3.1.1.1, §3.2.1.1.1, §3.2.2.1.1.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pushgate_plugins::host;

use super::edge::{close_relayed, read_size};
use super::exchange::{Conn, Exchange, Reason};
use crate::config::defaults;
use crate::route::{Assigned, Decision};
use crate::stream::relay::{HalfClose, Rules, relay};
use crate::stream::side::Side;
use crate::stream::socket::{self, Options};
use crate::upstream::connect::Dialer;

/// Serves one layer-4 connection to its end.
pub async fn serve(client: Side, conn: Arc<Conn>) {
    let ex = Exchange::new(conn, "tcp");
    let Some(node) = Box::pin(connect(&ex)).await else {
        return ex.close(Reason::NoNode, (0, 0));
    };
    let rules = Rules {
        half_close: HalfClose::Kept,
        read: read_size(&ex.conn.listener.conf.load()),
    };
    let end = relay(
        (client, Vec::new()),
        (node, Vec::new()),
        rules,
        ex.flow.kill.notified(),
    )
    .await;
    close_relayed(&ex, end);
}

/// Decides and connects, elsewhere if a node cannot be reached.
async fn connect(ex: &Arc<Exchange>) -> Option<Side> {
    loop {
        let assigned = match decide(ex) {
            Decision::Node(assigned) => assigned,
            Decision::NoNode(_) => return None,
            Decision::Refuse(_) | Decision::Redirect(..) => {
                ex.ended(Reason::Refused);
                return None;
            }
        };
        let dialer = dialer(ex, &assigned);
        if let Ok(side) = dialer.dial().await {
            ex.flow.begin();
            return Some(side);
        }
        ex.leave();
        ex.flow.retry();
        let mut record = ex.record.lock();
        record.tried.push(assigned.node.id);
        if record.tried.len() > assigned.pool.as_ref().map_or(0, |p| p.retries as usize) {
            record.reason = Some(Reason::NodeUnreachable);
            return None;
        }
    }
}

fn decide(ex: &Arc<Exchange>) -> Decision {
    let sni = ex
        .conn
        .tls
        .as_ref()
        .and_then(|t| t.sni.as_deref())
        .unwrap_or_default();
    let host = host::normalise(sni);
    let (random, tried) = {
        let record = ex.record.lock();
        (record.random, record.tried.clone())
    };
    let facts = ex.facts(&host, None, random);
    let decision = ex.table.decide(&facts, &tried);
    if let Decision::Node(assigned) = &decision {
        let learned = assigned.pool.as_ref().map(|_| ex.table.filed(&facts));
        ex.assign(assigned.clone(), learned);
    }
    decision
}

fn dialer(ex: &Arc<Exchange>, assigned: &Assigned) -> Dialer {
    let random = ex.record.lock().random;
    let mut preamble = Vec::new();
    let facts = ex.facts("", None, random);
    ex.table
        .plugins
        .iter()
        .for_each(|p| p.preamble(&facts, &mut preamble));
    let read = read_size(&ex.conn.listener.conf.load());
    Dialer {
        node: assigned.node.clone(),
        flow: ex.flow.clone(),
        affinity: ex.conn.affinity.clone(),
        to_head: false,
        options: Options {
            keepalive: defaults::KEEPALIVE.0,
            user_timeout: defaults::NODE_USER_TIMEOUT.0,
            receive_buffer: Some(socket::receive_buffer(
                ex.conn.listener.conf.load().max_hidden.0,
            )),
        },
        timeout: assigned
            .pool
            .as_ref()
            .map_or(defaults::CONNECT_TIMEOUT.0, |p| p.connect_timeout),
        preamble,
        read,
        reused: AtomicBool::new(false),
    }
}
