//! Closes both sides of a relay, and reports its end.
//!
//! In: the reason. Out: sockets that send FIN or RST when they are dropped, and an [`End`].
//! Source: RFC 9112 §9.5; RFC 8441 §5.

use std::pin::Pin;
use std::task::Context;

use tokio::io::AsyncWrite;

use super::{End, Kind, Relay};
use crate::observe::end_reason::EndReason;
use crate::stream::graceful_close::reset_if_stalled;
use crate::stream::socket;

impl Relay {
    /// Prepares the close of both sides and reports the end. A client gets RST if its node fails at layer 4, in a
    /// WebSocket, or in an answer that a close ends. A killed client gets RST as `notify` says, and if it does not
    /// read. A node gets RST if it must see a cut, to free our local port, and to drop bytes that it will never
    /// acknowledge.
    pub(super) fn end(&mut self, cx: &mut Context<'_>, reason: EndReason, killed: bool) -> End {
        // If both sides closed in order, the first one gives the reason.
        let reason = match reason {
            EndReason::NodeClosed => self.first.unwrap_or(reason),
            EndReason::ClientFailed => self.client.gone().unwrap_or(reason),
            _ => reason,
        };
        let hidden = match reason {
            EndReason::Done => 0,
            _ => {
                let in_kernel = match killed {
                    true => reset_if_stalled(&self.client),
                    false => self.client.unacknowledged(),
                };
                let unread = self.node.tcp().map_or(0, |tcp| socket::unread(tcp.fd()));
                self.down.held() as u64 + in_kernel + unread
            }
        };
        let lost = self.lost(reason);
        self.settle(cx, reason, killed);
        End {
            reason,
            to_node: self.body_sent(),
            to_client: self.down.passed(),
            hidden,
            lost,
            answered: self.answered,
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>, reason: EndReason, killed: bool) {
        let exchange = matches!(self.kind, Kind::Exchange { .. });
        match reason {
            // The kernel would go on sending unacknowledged bytes to a dead node for minutes.
            _ if killed => {
                if let Some(tcp) = self.node.tcp() {
                    tcp.reset_on_close_if_unacknowledged();
                }
            }
            EndReason::ClientFailed => self.node.reset_on_close(),
            // An orderly close would keep our port to the node for a minute. A reset of a stream must also
            // reach the node (RFC 8441 §5). A node that lacks some of the bytes must see a cut.
            EndReason::ClientClosed if exchange || self.client.gone().is_some() || !self.told.1 => {
                self.node.reset_on_close();
            }
            // Otherwise no reset: a client that knows its answer's framing gets the bytes in transit, then
            // sees the cut.
            EndReason::NodeFailed | EndReason::BadAnswer
                if !exchange || self.looks_whole() || self.ends_by_node() =>
            {
                self.client.reset_on_close();
            }
            EndReason::ClientClosed | EndReason::NodeClosed if !exchange => {
                // Polled once: a peer that does not read must not hold this task.
                for side in [&mut self.client, &mut self.node] {
                    let _ = Pin::new(side).poll_shutdown(cx);
                }
            }
            _ => {}
        }
    }
}
