//! The last flow of a client connection, relayed in a task of its own: a WebSocket or a layer-4 flow.
//!
//! In: a relay. Out: bytes both ways, the access line. Source: Lightstreamer clustering §1.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::flow::{Exchange, Kill};
use crate::observe::end_reason::EndReason;
use crate::stream::relay::{End, Relay, Relaying};

/// Relays the last flow of a client's connection, and then closes it.
///
/// The task that served the connection so far ends. A silent flow keeps nothing of that task, and a message
/// touches no memory but the relay's.
pub fn relay_alone(ex: Arc<Exchange>, relay: Relay) {
    // The other streams of a connection may need theirs.
    if !relay.is_of_stream() {
        ex.conn.keeps_no_idle();
    }
    ex.record.lock().tries = None;
    let relaying = Relaying::new(relay, ex.kill());
    tokio::spawn(Alone { ex, relaying });
}

/// Hand-written future: an async block would store its arguments beside what is made of them.
struct Alone {
    ex: Arc<Exchange>,
    relaying: Relaying<Kill>,
}

impl Future for Alone {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.relaying).poll(cx);
        if self.relaying.first_passed()
            && let Some(assigned) = &self.ex.record.lock().assigned
        {
            assigned.node.passive_health.answered(0);
        }
        let end = ready!(polled);
        close(&self.ex, end);
        Poll::Ready(())
    }
}

fn close(ex: &Exchange, end: End) {
    {
        let mut record = ex.record.lock();
        record.hidden = Some(end.hidden);
        // A WebSocket's 101 was its answer.
        if let (Some(assigned), false) = (&record.assigned, end.answered) {
            match (end.reason, end.to_client) {
                // Accepted, and broken before a byte was said.
                (EndReason::NodeFailed, 0) => {
                    let node = assigned.node.clone();
                    drop(record);
                    node.broke(ex.counted_as(None));
                }
                (_, 0) => {}
                // Its first byte passed as the flow ended.
                _ => assigned.node.passive_health.answered(0),
            }
        }
    }
    ex.close(end.reason, (end.to_node, end.to_client));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::conn::Conn;
    use crate::upstream::LiveFlow;

    /// Aim: a silent flow does not grow unnoticed. The pieces a silent WebSocket keeps, besides its two
    /// sockets' registrations and entries of tables; docs/performance.md, "A silent connection".
    #[test]
    fn a_silent_flow_is_small() {
        let pieces = [
            ("relay", size_of::<Alone>(), 480),
            ("exchange", size_of::<Exchange>(), 304),
            ("connection", size_of::<Conn>(), 208),
            ("flow", size_of::<LiveFlow>(), 176),
        ];
        for (what, bytes, most) in pieces {
            assert!(bytes <= most, "{what}: {bytes} bytes");
        }
    }
}
