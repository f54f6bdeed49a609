//! Relays the last flow of a client connection, a WebSocket or a layer-4 flow, in a task of its own.
//!
//! In: a relay. Out: bytes both ways, the access line. Source: Lightstreamer clustering §1.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::flow::{Exchange, Kill};
use crate::observe::end_reason::EndReason;
use crate::stream::relay::{End, Relay, Relaying};

/// Starts a task that relays the last flow of a client's connection and then closes it.
///
/// The task that has served the connection ends. So a silent flow keeps none of that task's memory, and a
/// message touches no memory but the relay's.
pub fn relay_alone(ex: Arc<Exchange>, relay: Relay) {
    // Other streams of an HTTP/2 connection may still use its idle upstreams.
    if !relay.is_of_stream() {
        ex.conn.keeps_no_idle();
    }
    ex.record.lock().tries = None;
    ex.log_begin();
    let relaying = Relaying::new(relay, ex.kill());
    tokio::spawn(Alone { relaying });
}

/// Hand-written future: an async block would store its arguments and also the values made from them.
struct Alone {
    relaying: Relaying<Kill>,
}

impl Future for Alone {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.relaying).poll(cx);
        let first = self.relaying.first_passed();
        let ex = self.relaying.kill().exchange();
        if first && let Some(assigned) = &ex.record.lock().assigned {
            assigned.node.passive_health.answered(0);
        }
        let end = ready!(polled);
        close(ex, end);
        Poll::Ready(())
    }
}

fn close(ex: &Exchange, end: End) {
    ex.lost(end.lost);
    {
        let mut record = ex.record.lock();
        record.hidden = Some(end.hidden);
        // Not for a WebSocket: its 101 was reported as its answer.
        if let (Some(assigned), false) = (&record.assigned, end.answered) {
            match (end.reason, end.to_client) {
                // The node accepted the connection and lost it before its first byte.
                (EndReason::NodeFailed, 0) => {
                    let node = assigned.node.clone();
                    drop(record);
                    node.passive_health.broke(ex.counted_as(None));
                }
                (_, 0) => {}
                // The node's first byte passed in the poll that ended the flow.
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

    /// Aim: a silent flow does not grow unnoticed. These are the pieces a silent WebSocket keeps. Its two
    /// sockets' registrations and entries of tables come on top; docs/performance.md, "A silent connection".
    /// Fails if a piece exceeds its bound in bytes.
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
