//! Keeps the idle upstreams of one client connection for its later requests.
//!
//! In: connections whose answer is complete. Out: one of them for the next request to the same node. No other
//! client gets them, and they close with the client connection. The key is the node itself, not its name,
//! because a reload may give the name to another node.
//! Source: Diffusion load balancers, "Connection pooling" and "Reuse TCP connection".

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::Interest;

use super::Node;
use crate::stream::kernel;
use crate::stream::side::Side;

/// Idle upstream connections of one client connection. Dropping it closes them.
#[derive(Default)]
pub struct IdleUpstreams {
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    node: Arc<Node>,
    side: Side,
    /// Since it is idle, the runtime has polled the socket and found it silent.
    seen: bool,
}

/// Most idle upstreams of one client connection: HTTP/2 may leave one for each parallel stream.
const MAX_IDLE: usize = 16;

impl IdleUpstreams {
    /// Keeps a connection whose last answer is complete. The client connection's task calls
    /// [`IdleUpstreams::poll_unused`] while it waits.
    ///
    /// Closes the connection instead if its node is Down or removed, or has sent bytes after its answer. TLS
    /// may have decrypted such bytes, so that the socket does not show them.
    pub fn keep(&self, node: &Arc<Node>, side: Side) {
        let side = side.untapped();
        let ahead = side.tcp().is_none_or(|tcp| tcp.has_ahead());
        if ahead || side.ssl().is_some_and(|ssl| ssl.pending() > 0) {
            return;
        }
        let mut idle = self.idle.lock();
        // Checked under the lock: a node that goes Down now closes the connections kept before, and this
        // check stops later ones.
        if !node.may_keep() {
            return;
        }
        if idle.len() == MAX_IDLE {
            idle.remove(0);
        }
        idle.push(Idle {
            node: node.clone(),
            side,
            seen: false,
        });
    }

    /// Takes a connection to `node` that has been silent since. FIN, RST and unsolicited bytes all make a
    /// connection useless.
    pub fn take(&self, node: &Arc<Node>) -> Option<Side> {
        let mut idle = self.idle.lock();
        while let Some(i) = idle.iter().rposition(|i| Arc::ptr_eq(&i.node, node)) {
            let Idle { side, seen, .. } = idle.swap_remove(i);
            // The runtime knows if it has polled the socket; otherwise the kernel is asked. A pipelined
            // request follows at once, without such a poll.
            let mut cx = Context::from_waker(Waker::noop());
            if (seen && side.poll_readable(&mut cx).is_pending()) || is_silent(&side) {
                return Some(side);
            }
        }
        None
    }

    /// Closes connections on which bytes or an end arrived. Wakes the task of `cx` when that happens later.
    pub fn poll_unused(&self, cx: &mut Context<'_>) {
        let mut idle = self.idle.lock();
        if !idle.is_empty() {
            idle.retain_mut(|i| {
                i.seen = poll_silent(cx, &i.side);
                i.seen
            });
        }
    }

    /// Closes all idle connections.
    pub fn close_all(&self) {
        *self.idle.lock() = Vec::new();
    }

    /// Closes the idle connections to `node`.
    pub fn close(&self, node: &Node) {
        self.idle
            .lock()
            .retain(|i| !std::ptr::eq(Arc::as_ptr(&i.node), node));
    }
}

/// Whether `side` is open with no byte to read. Wakes the task of `cx` when that changes.
fn poll_silent(cx: &mut Context<'_>, side: &Side) -> bool {
    let Some(tcp) = side.tcp() else { return false };
    while let Poll::Ready(ready) = tcp.poll_readable(cx) {
        // Usually the last read took every byte, which the runtime could not know.
        let stream = tcp.stream();
        let looked = stream.try_io(Interest::READABLE, || match is_silent(side) {
            true => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            false => Ok(()),
        });
        if looked.is_ok() || ready.is_err() {
            return false;
        }
    }
    true
}

/// Whether the connection is open with no byte to read. Asks the kernel, because the runtime notices bytes
/// only when it polls.
fn is_silent(side: &Side) -> bool {
    let tcp = side.tcp();
    tcp.is_some_and(|tcp| kernel::is_silent(tcp.stream()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::pair;
    use std::io::Write;
    use std::net::Shutdown;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// `take` notices bytes or an end that come between two polls of the runtime: a pipelined request is
    /// served without such a poll. Fails if only the runtime is asked.
    #[tokio::test]
    async fn take_notices_bytes_between_polls() {
        let conf = serde_yaml::from_str("{ address: 10.0.0.1:80 }").expect("a node");
        let known = Node::new("n", &conf, crate::config::OnDown::Evict, None);
        for said in [None, Some(""), Some("x")] {
            let idle = Arc::<IdleUpstreams>::default();
            let (mut node, mut side) = pair().await;
            node.write_all(b"answer").await.expect("send");
            assert_eq!(side.read(&mut [0; 64]).await.expect("an answer"), 6);
            let node = node.into_std().expect("a socket");
            idle.keep(&known, side);
            // Without an await, so that the runtime polls nothing meanwhile.
            match said {
                None => {}
                Some("") => node.shutdown(Shutdown::Write).expect("an end"),
                Some(bytes) => (&node).write_all(bytes.as_bytes()).expect("bytes"),
            }
            assert_eq!(idle.take(&known).is_some(), said.is_none(), "{said:?}");
        }
    }
}
