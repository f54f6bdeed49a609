//! Layer 4: a client connection is one flow, relayed as it is.
//!
//! Source: Lightstreamer clustering §1 ("Layer 4 (TCP)"), §3.1.1, §3.2.1.1, §3.2.2.1, for
//! several domains §3.1.1.1, §3.2.1.1.1, §3.2.2.1.1.

use std::sync::Arc;

use super::assign::{decide, dialer, in_time};
use super::exchange::{Conn, Exchange, Reason};
use super::relayed::{close_relayed, relay_alone, unsent_allowance};
use crate::route::Decision;
use crate::stream::relay::{End, HalfClose, Rules, Why};
use crate::stream::side::Side;

/// Connects one layer-4 connection to its node and sets it going.
pub async fn serve(client: Side, conn: Arc<Conn>) {
    let ex = Exchange::new(conn, "tcp");
    if !ex.take_seat() {
        return ex.close(Reason::ClientLimit, (0, 0));
    }
    let Some(node) = Box::pin(connect(&ex)).await else {
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
        // Accepted, and broken before a byte was said: as bad as a connect that is refused.
        match (end.why, end.to_client) {
            (Why::NodeFailed, 0) => assigned.node.failed(),
            (_, 0) => {}
            _ => assigned.node.met.answered(0),
        }
    }
    close_relayed(ex, end);
}

/// Decides and connects, elsewhere if a node cannot be reached.
async fn connect(ex: &Exchange) -> Option<Side> {
    loop {
        let assigned = match in_time(ex, |in_turn| decide(ex, None, in_turn)).await {
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
        if let Ok(side) = dialer(ex, None, &assigned).dial().await {
            ex.flow.begin();
            return Some(side);
        }
        ex.leave();
        ex.flow.retry();
        let mut record = ex.record.lock();
        record.failed_at(assigned.node.id);
        if record.retries > assigned.pool.as_ref().map_or(0, |p| p.retries as usize) {
            record.reason = Some(Reason::NodeUnreachable);
            return None;
        }
    }
}
