//! What left Pingora, relayed to its end: a WebSocket, or an answer, after which client and node are
//! kept for what follows.
//!
//! In: the sockets from the hand-off, of an answer its framing. Out: the client's socket for its next
//! request, the node's in the client's [`Affinity`](crate::upstream::Affinity), the access line.
//! Source: Diffusion load balancers, "Reuse TCP connection"; RFC 9112 §9.3.

use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::client_io::MAX_AHEAD;
use super::exchange::{Exchange, Reason};
use crate::config;
use crate::stream::answer::{self, Cut};
use crate::stream::handoff::Left;
use crate::stream::parting::once;
use crate::stream::relay::{End, HalfClose, Relay, Rules, Why};
use crate::stream::side::Side;
use crate::stream::socket;

/// Relays what `ex` left to its end. Returns the client's socket if its connection goes on.
///
/// A boxed future made of boxed parts: what is handed over must not be kept beside it.
pub fn relayed(ex: Arc<Exchange>) -> Pin<Box<dyn Future<Output = Option<Left>> + Send>> {
    ex.record.lock().dialer = None;
    let unsent = unsent_allowance(&ex.conn.listener.conf.load());
    let Some(exit) = ex.flow.handoff.take() else {
        ex.close(Reason::Internal, (0, 0));
        return Box::pin(std::future::ready(None));
    };
    match exit.answer {
        Some(answer) => {
            let ahead = MAX_AHEAD;
            let rules = answer::Rules { unsent, ahead };
            let relay = answer::Relay::new(exit.client, exit.node, answer, rules);
            Box::pin(relay_answer(ex, relay))
        }
        None => {
            let rules = Rules {
                half_close: HalfClose::Ends,
                unsent,
                frames: true,
            };
            let relay = Relay::new(exit.client, exit.node, rules);
            Box::pin(relay_websocket(ex, relay))
        }
    }
}

async fn relay_websocket(ex: Arc<Exchange>, relay: Box<Relay>) -> Option<Left> {
    let end = relay.run(pin!(ex.kill())).await;
    close_relayed(&ex, end);
    None
}

async fn relay_answer(ex: Arc<Exchange>, relay: Box<answer::Relay>) -> Option<Left> {
    let relayed = relay.run(pin!(ex.kill())).await;
    let passed = (0, relayed.to_client);
    match relayed.end {
        Ok(whole) => {
            if let Some(node) = whole.node {
                keep(&ex, node);
            }
            ex.close(Reason::Done, passed);
            if whole.keep_client {
                return Some(whole.client);
            }
            let (mut client, _) = whole.client;
            Box::pin(once(client.shutdown())).await;
            None
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
        && assigned.node.may_keep()
    {
        ex.conn.affinity.put(assigned.node.id, node);
    }
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

/// How many bytes a relay may have given to the client's kernel unsent.
pub fn unsent_allowance(conf: &config::Listener) -> usize {
    socket::unsent_allowance(conf.max_hidden.0)
}
