//! Layer 4: a client connection is one flow, relayed as it is.
//!
//! Source: Lightstreamer clustering §1 ("Layer 4 (TCP)"), §3.1.1, §3.2.1.1, §3.2.2.1, for
//! several domains §3.1.1.1, §3.2.1.1.1, §3.2.2.1.1.

use std::sync::Arc;

use super::assign::{decide, dialer, wait};
use super::exchange::{Conn, Exchange, Reason};
use super::relayed::{close_relayed, relay_alone, unsent_allowance};
use crate::route::Decision;
use crate::stream::relay::{End, HalfClose, Rules, Why};
use crate::stream::side::Side;
use crate::upstream::connect::Failure;

/// Connects one layer-4 connection to its node and sets it going.
pub async fn serve(client: Side, conn: Arc<Conn>) {
    let ex = Exchange::new(conn, "tcp");
    if !ex.take_seat(None) {
        return ex.close(Reason::ClientLimit, (0, 0));
    }
    let Some(node) = Box::pin(connect(&ex, &client)).await else {
        return ex.close(Reason::NoNode, (0, 0));
    };
    let rules = Rules {
        half_close: HalfClose::Kept,
        unsent: unsent_allowance(&ex.conn.listener.conf.load()),
        frames: false,
    };
    relay_alone(ex, (client, Vec::new()), (node, Vec::new()), rules, close);
}

fn close(ex: &Exchange, end: End) {
    if let Some(assigned) = &ex.record.lock().assigned {
        match (end.why, end.to_client) {
            // Accepted, and broken before a byte was said.
            (Why::NodeFailed, 0) => assigned.node.broke(ex.counted_as(None)),
            (_, 0) => {}
            // Else its first byte was noticed as it passed.
            _ if !end.answered => assigned.node.met.answered(0),
            _ => {}
        }
    }
    close_relayed(ex, end);
}

/// Waits until the client is gone. A FIN alone does not say so, it may still read; but where its TLS passes
/// through, it can finish no handshake.
async fn left(ex: &Exchange, client: &Side) {
    let tls = ex.conn.tls.as_ref();
    match tls.is_some_and(|tls| tls.version.is_empty()) {
        true => client.tcp().peer_ended().await,
        false => client.tcp().peer_failed().await,
    }
}

/// Decides and connects, elsewhere if a node cannot be reached.
async fn connect(ex: &Exchange, client: &Side) -> Option<Side> {
    loop {
        let decided = match decide(ex, None, false) {
            Decision::Wait(pool) => wait(ex, None, pool, left(ex, client)).await,
            decision => Ok(decision),
        };
        let Ok(decided) = decided else {
            ex.ended(Reason::ClientClosed);
            return None;
        };
        let assigned = match decided {
            Decision::Node(assigned) => assigned,
            Decision::NoNode(_) => return None,
            Decision::Wait(_) => {
                ex.ended(Reason::Busy);
                return None;
            }
            Decision::Refuse(_) | Decision::Redirect(..) => {
                ex.ended(Reason::Refused);
                return None;
            }
        };
        let (reason, again) = match dialer(ex, None, &assigned).dial().await {
            Ok(side) => {
                ex.flow.begin();
                ex.record.lock().reason = None;
                return Some(side);
            }
            // Without descriptors or memory no other node can be reached either.
            Err(Failure::Short(shortage)) => (Reason::Exhausted, shortage.spares_others()),
            Err(Failure::Evicted) => (Reason::Evicted, true),
            Err(_) => (Reason::NodeUnreachable, true),
        };
        ex.leave();
        ex.flow.retry();
        let mut record = ex.record.lock();
        record.failed_at(assigned.node.id);
        // Where nobody is left to try, what the last one failed of is what the operator should know.
        record.reason = Some(reason);
        let most = assigned.pool.as_ref().map_or(0, |p| p.retries as usize);
        if !again || record.retries > most {
            return None;
        }
    }
}
