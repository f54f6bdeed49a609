//! What left Pingora, relayed to its end: an answer, after which client and node are kept for what follows;
//! a WebSocket or a layer-4 flow, which go on alone.
//!
//! In: the sockets from the hand-off, of an answer its framing. Out: the client's socket for its next
//! request, the node's in the client's [`Affinity`](crate::upstream::Affinity), the access line.
//! Source: Diffusion load balancers, "Reuse TCP connection"; RFC 9112 §9.3.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWriteExt;

use super::client_io::MAX_AHEAD;
use super::exchange::{Exchange, Kill, Reason};
use crate::config;
use crate::stream::answer::{self, Cut};
use crate::stream::handoff::Left;
use crate::stream::relay::{End, HalfClose, Relaying, Rules, Why, relay};
use crate::stream::side::Side;
use crate::stream::socket;

/// Relays an answer that `ex` left to its end, and sets a WebSocket going. Returns the client's socket if
/// its connection carries more requests.
///
/// A boxed future made of boxed parts: what is handed over must not be kept beside it.
pub fn relayed(ex: Arc<Exchange>) -> Pin<Box<dyn Future<Output = Option<Left>> + Send>> {
    ex.record.lock().tries = None;
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
            relay_alone(ex, exit.client, exit.node, rules, close_relayed);
            Box::pin(std::future::ready(None))
        }
    }
}

/// Relays the last flow of a client's connection in a task of its own, and then closes it by `close`.
///
/// The task that served the connection so far ends: a silent flow keeps nothing of it, and a message touches
/// no memory but the relay's.
pub fn relay_alone(
    ex: Arc<Exchange>,
    client: Left,
    node: Left,
    rules: Rules,
    close: fn(&Exchange, End),
) {
    ex.conn.keeps_no_idle();
    let relaying = relay(client, node, rules, ex.kill());
    tokio::spawn(Alone {
        ex,
        relaying,
        close,
    });
}

/// A future by hand: an async block would keep what is handed over beside what is made of it.
struct Alone {
    ex: Arc<Exchange>,
    relaying: Relaying<Kill>,
    close: fn(&Exchange, End),
}

impl Future for Alone {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.relaying).poll(cx);
        if self.relaying.first_passed()
            && let Some(assigned) = &self.ex.record.lock().assigned
        {
            assigned.node.met.answered(0);
        }
        let end = ready!(polled);
        (self.close)(&self.ex, end);
        Poll::Ready(())
    }
}

async fn relay_answer(ex: Arc<Exchange>, relay: Box<answer::Relay>) -> Option<Left> {
    let relayed = relay.run(ex.kill()).await;
    let passed = (0, relayed.to_client);
    match relayed.end {
        Ok(whole) => {
            if whole.keep_client {
                if let Some(node) = whole.node {
                    keep(&ex, node);
                }
                ex.close(Reason::Done, passed);
                return Some(whole.client);
            }
            // No request will follow: the node need not wait for a client that takes its time.
            drop(whole.node);
            let reason = Box::pin(end(&ex, whole.client.0)).await;
            ex.close(reason, passed);
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

/// Ends the connection of a client whose answer is with its kernel. TLS has a last word: without it the answer
/// looks cut, and it is not taken before all of the answer is sent. A client that takes its time is waited for,
/// as in the midst of an answer.
async fn end(ex: &Arc<Exchange>, mut client: Side) -> Reason {
    tokio::select! {
        biased;
        // An error says that the client is gone.
        _ = client.shutdown() => Reason::Done,
        () = ex.kill() => {
            client.tcp().reset_on_close_if_stalled();
            ex.killed()
        }
    }
}

/// Leaves the node's connection for the client's next request.
fn keep(ex: &Exchange, node: Side) {
    let record = ex.record.lock();
    if let Some(assigned) = &record.assigned {
        ex.conn.affinity.put(&assigned.node, node);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::exchange::Conn;
    use crate::upstream::LiveFlow;

    /// Aim: nobody makes silence dearer unnoticed. The pieces a silent WebSocket keeps, besides its two
    /// sockets' registrations and entries of tables; docs/performance.md, "A silent connection".
    #[test]
    fn a_silent_flow_is_small() {
        let pieces = [
            ("relay", size_of::<Alone>(), 408),
            ("exchange", size_of::<Exchange>(), 304),
            ("connection", size_of::<Conn>(), 208),
            ("flow", size_of::<LiveFlow>(), 176),
            ("answer's relay", size_of::<answer::Relay>(), 272),
        ];
        for (what, bytes, most) in pieces {
            assert!(bytes <= most, "{what}: {bytes} bytes");
        }
    }
}
