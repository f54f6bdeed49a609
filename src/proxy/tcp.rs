//! Serves layer 4: a client connection is one flow, and its bytes pass unchanged.
//!
//! Source: Lightstreamer clustering §1 ("Layer 4 (TCP)"), §3.1.1, §3.2.1.1, §3.2.2.1, for several domains
//! §3.1.1.1, §3.2.1.1.1, §3.2.2.1.1.

use std::sync::Arc;

use super::assign::{dialer, wait};
use super::claim;
use super::conn::Conn;
use super::flow::Exchange;
use super::tunnel::relay_alone;
use crate::observe::end_reason::EndReason;
use crate::route::Decision;
use crate::stream::relay::Relay;
use crate::stream::side::Side;
use crate::upstream::connect::ConnectError;

/// Connects one layer-4 connection to its node and starts its relay.
pub async fn serve(client: Side, conn: Arc<Conn>) {
    let ex = Exchange::new(conn, "tcp");
    if !ex.take_seat(None) {
        return ex.close(EndReason::ClientLimit, (0, 0));
    }
    let Some(node) = Box::pin(connect(&ex, &client)).await else {
        return ex.close(EndReason::NoNode, (0, 0));
    };
    let rules = ex.conn.listener.rules();
    let mut relay = Relay::layer4(client, node, rules);
    ex.follow(&mut relay);
    relay_alone(ex, relay);
}

/// Waits until the client has left. After a FIN alone a client may still read, so it has not left. But if its
/// TLS passes through, it can no longer finish the handshake, so a FIN suffices.
async fn left(ex: &Exchange, client: &Side) {
    let tls = ex.conn.tls.as_ref();
    match (client.tcp(), tls.is_some_and(|tls| tls.version.is_empty())) {
        (Some(tcp), true) => tcp.peer_ended().await,
        (Some(tcp), false) => tcp.peer_failed().await,
        (None, _) => std::future::pending().await,
    }
}

/// Chooses a node and connects to it; tries another node if one cannot be reached.
async fn connect(ex: &Exchange, client: &Side) -> Option<Side> {
    loop {
        let decided = match claim::decide(ex, None, left(ex, client)).await {
            Ok(Decision::Wait(pool)) => wait(ex, None, pool, left(ex, client)).await,
            decided => decided,
        };
        let Ok(decided) = decided else {
            ex.ended(EndReason::ClientClosed);
            return None;
        };
        let assigned = match decided {
            Decision::Node(assigned) => assigned,
            Decision::NoNode(_) => return None,
            Decision::Wait(_) | Decision::Full(..) => {
                ex.ended(EndReason::Busy);
                return None;
            }
            Decision::TooMany(_) => {
                ex.ended(EndReason::ClientLimit);
                return None;
            }
            Decision::Refuse(_) | Decision::Redirect(..) => {
                ex.ended(EndReason::Refused);
                return None;
            }
        };
        let (reason, again) = match dialer(ex, None, &assigned).dial().await {
            Ok(side) => {
                ex.flow.begin();
                ex.record.lock().reason = None;
                return Some(side);
            }
            // Without descriptors or memory the edge reaches no other node either.
            Err(ConnectError::Short(shortage)) => (EndReason::Exhausted, shortage.spares_others()),
            Err(ConnectError::ClientShare) => (EndReason::ClientLimit, false),
            Err(ConnectError::Evicted) => (EndReason::Evicted, true),
            Err(_) => (EndReason::NodeUnreachable, true),
        };
        ex.leave();
        ex.flow.retry();
        let mut record = ex.record.lock();
        record.failed_at(assigned.node.id);
        // If no node is left to try, the log names the reason of the last failure.
        record.reason = Some(reason);
        let most = assigned.pool.as_ref().map_or(0, |p| p.retries as usize);
        if !again || record.retries > most {
            return None;
        }
    }
}
