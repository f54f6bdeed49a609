//! Ends a flow whose client or node has ended while no direction reads from it.
//!
//! In: which sides are read. Out: the reason of the end. Where a direction reads, its read reports the end.
//! Otherwise a client that is gone would keep its flow, two descriptors and a port for ever: after its FIN
//! was passed on, or while its node does not read.
//! Source: FAULTS D20, D53, D60.

use std::mem::replace;
use std::os::fd::RawFd;
use std::task::{Context, Poll, ready};

use super::Relay;
use crate::observe::end_reason::EndReason;
use crate::stream::dead_peer::{self, Peer, PeerEnd, Until};

impl Relay {
    /// Ready, with the reason, when a peer has ended from which no direction reads.
    pub(super) fn poll_ends(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        match self.poll_client_end(cx, self.up.waits_for_source()) {
            Poll::Pending => self.poll_node_end(cx, self.down.waits_for_source()),
            over => over,
        }
    }

    /// Ready, with the reason, when the client has ended and takes and gives no more bytes. `is_read`: a
    /// direction waits for its bytes, so nothing is watched here.
    pub(super) fn poll_client_end(
        &mut self,
        cx: &mut Context<'_>,
        is_read: bool,
    ) -> Poll<EndReason> {
        if is_read && !self.watched.client {
            return Poll::Pending;
        }
        let node = self.node.tcp().map(|tcp| tcp.fd());
        let Some((fd, peer)) = (match self.client.tcp() {
            Some(tcp) => Some((tcp.fd(), Peer::Client)),
            None => node.map(|fd| (fd, Peer::Stream)),
        }) else {
            return Poll::Pending;
        };
        if is_read {
            self.watched.client = false;
            dead_peer::forget(fd, peer);
            return Poll::Pending;
        }
        let mut gone = None;
        if let Some(stream) = self.client.stream() {
            let reason = ready!(stream.poll_gone(cx));
            if self.told.1 {
                return Poll::Ready(reason);
            }
            gone = Some(reason);
        }
        let until = until(self.told.1, node, self.up.passed());
        let again = replace(&mut self.watched.client, true);
        let end = ready!(dead_peer::poll_end(fd, peer, until, again, cx));
        Poll::Ready(gone.unwrap_or(match end {
            PeerEnd::Closed => EndReason::ClientClosed,
            PeerEnd::Failed => EndReason::ClientFailed,
        }))
    }

    /// As [`Relay::poll_client_end`], for the node. A node that has closed in order keeps its flow: the client
    /// may still read what the node has sent.
    pub(super) fn poll_node_end(&mut self, cx: &mut Context<'_>, is_read: bool) -> Poll<EndReason> {
        let is_done = self.watched.node_is_done && !self.told.0;
        let not_watched = is_read || is_done;
        let Some(fd) = self.node.tcp().map(|tcp| tcp.fd()) else {
            return Poll::Pending;
        };
        if not_watched {
            if replace(&mut self.watched.node, false) {
                dead_peer::forget(fd, Peer::Node);
            }
            return Poll::Pending;
        }
        let client = self.client.tcp().map(|tcp| tcp.fd());
        let until = until(self.told.0, client, self.down.passed());
        let again = replace(&mut self.watched.node, true);
        match ready!(dead_peer::poll_end(fd, Peer::Node, until, again, cx)) {
            PeerEnd::Closed => {
                self.watched.node_is_done = true;
                self.poll_node_end(cx, is_read)
            }
            // Its FIN was passed on, so it has closed.
            PeerEnd::Failed if self.told.0 => Poll::Ready(EndReason::NodeClosed),
            PeerEnd::Failed => Poll::Ready(EndReason::NodeFailed),
        }
    }
}

/// Says what ends the wait for a peer. `told`: the other side has its FIN. Otherwise its bytes, of which
/// `passed` were passed, wait for the socket `to`.
fn until(told: bool, to: Option<RawFd>, passed: u64) -> Until {
    match told {
        true => Until::Failed,
        false => Until::Stalled { to, passed },
    }
}

#[cfg(test)]
mod tests;
