//! What left Pingora, relayed to its end: a WebSocket, or an answer, after which client and node are
//! kept for what follows.
//!
//! In: the sockets from the hand-off, of an answer its framing. Out: the client's socket for its next
//! request, the node's in the client's [`Affinity`](crate::upstream::Affinity), the access line.
//! Source: Diffusion load balancers, "Reuse TCP connection"; RFC 9112 §9.3.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::client_io::MAX_AHEAD;
use super::exchange::{Exchange, Reason};
use crate::config;
use crate::stream::answer::{self, Cut};
use crate::stream::handoff::{Answer, Left};
use crate::stream::relay::{End, HalfClose, Rules, Why, once, relay};
use crate::stream::side::Side;
use crate::stream::socket;
use crate::upstream::State;

/// Relays `answer`. Returns the client's socket if its connection goes on.
pub async fn answer(ex: &Arc<Exchange>, sockets: (Left, Left), answer: Answer) -> Option<Left> {
    ex.record.lock().dialer = None;
    let rules = answer::Rules {
        read: read_size(&ex.conn.listener.conf.load()),
        ahead: MAX_AHEAD,
    };
    let relayed = answer::relay(sockets, &answer, rules, ex.kill()).await;
    let passed = (0, relayed.to_client);
    match relayed.end {
        Ok(whole) => {
            if let Some(node) = whole.node {
                keep(ex, node);
            }
            ex.close(Reason::Done, passed);
            let mut client = whole.client;
            if !answer.keep_client {
                once(client.0.shutdown()).await;
                return None;
            }
            Some(client)
        }
        Err(cut) => {
            ex.record.lock().hidden = Some(cut.hidden);
            let reason = match cut.why {
                Cut::ClientClosed => Reason::ClientClosed,
                Cut::ClientFailed => Reason::ClientFailed,
                Cut::NodeFailed => Reason::NodeFailed,
                Cut::BadAnswer => Reason::BadAnswer,
                Cut::Killed => ex.killed(),
            };
            ex.close(reason, passed);
            None
        }
    }
}

/// Leaves the node's connection for the client's next request.
fn keep(ex: &Exchange, node: Side) {
    let record = ex.record.lock();
    if let Some(assigned) = &record.assigned
        && assigned.node.state() != State::Down
    {
        ex.conn.affinity.put(assigned.node.id, node);
    }
}

/// Relays a WebSocket.
pub async fn websocket(ex: &Arc<Exchange>, client: Left, node: Left) {
    ex.record.lock().dialer = None;
    let read = read_size(&ex.conn.listener.conf.load());
    let rules = Rules {
        half_close: HalfClose::Ends,
        read,
        frames: true,
    };
    let end = relay(client, node, rules, ex.kill()).await;
    close_relayed(ex, end);
}

/// Closes an exchange whose bytes were relayed.
pub fn close_relayed(ex: &Exchange, end: End) {
    let reason = match end.why {
        Why::ClientClosed => Reason::ClientClosed,
        Why::NodeClosed => Reason::NodeClosed,
        Why::ClientFailed => Reason::ClientFailed,
        Why::NodeFailed => Reason::NodeFailed,
        Why::Killed => ex.killed(),
    };
    ex.record.lock().hidden = Some(end.hidden);
    ex.close(reason, (end.to_node, end.to_client));
}

/// Bytes the relay reads at once: an eighth of what may be hidden, as the node's receive buffer.
pub fn read_size(conf: &config::Listener) -> usize {
    socket::receive_buffer(conf.max_hidden.0)
}
