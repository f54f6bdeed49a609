//! Keeps the idle upstreams of one client connection for its later requests.
//!
//! In: connections whose answer is complete. Out: one of them for the next request to the same node. No other
//! client gets them, and they close with the client connection. The key is the node itself, not its name,
//! because a reload may give the name to another node.
//! Source: Diffusion load balancers, "Connection pooling" and "Reuse TCP connection".

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::Interest;

use crate::stream::kernel;
use crate::stream::side::Side;

/// Idle upstream connections of one client connection. Dropping it closes them.
#[derive(Default)]
pub struct IdleUpstreams {
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    to: Arc<IdleAtNode>,
    side: Side,
    /// The runtime has polled the socket after it became idle, and found it silent.
    seen: bool,
}

/// The client connections that have used one node and may keep idle upstreams to it.
#[derive(Default)]
pub struct IdleAtNode(Mutex<HashMap<u64, Weak<IdleUpstreams>>>);

impl IdleAtNode {
    /// Adds a client connection.
    pub fn add(&self, conn: u64, idle: &Arc<IdleUpstreams>) {
        self.0.lock().insert(conn, Arc::downgrade(idle));
    }

    /// Forgets a client connection that has closed.
    pub fn forget(&self, conn: u64) {
        self.0.lock().remove(&conn);
    }

    /// Closes the idle upstreams to this node, of all client connections.
    pub fn close(&self) {
        // The entries stay: a client connection registers once, and may use the node again later.
        for idle in self.0.lock().values() {
            if let Some(idle) = idle.upgrade() {
                idle.close(self);
            }
        }
    }
}

/// Most idle upstreams of one client connection, to all nodes together: HTTP/2 may leave one for each parallel
/// stream. A further one takes the place of another, usually the oldest.
const MAX_IDLE: usize = 16;

impl IdleUpstreams {
    /// Keeps a connection whose last answer is complete. The client connection's task calls
    /// [`IdleUpstreams::poll_unused`] while it waits.
    ///
    /// Closes it instead if `may_keep` says that the node must get no more connections, or if the edge already holds
    /// bytes that the node sent behind its answer: read ahead, or decrypted. Bytes that the kernel holds are left to
    /// [`IdleUpstreams::take`] and [`IdleUpstreams::poll_unused`].
    pub fn keep(&self, to: &Arc<IdleAtNode>, side: Side, may_keep: impl FnOnce() -> bool) {
        let side = side.untapped();
        let ahead = side.tcp().is_none_or(|tcp| tcp.has_ahead());
        if ahead || side.ssl().is_some_and(|ssl| ssl.pending() > 0) {
            return;
        }
        let mut idle = self.idle.lock();
        // Checked under the lock: a node that goes Down now closes the connections kept before (unless `on_down`
        // is `keep`), and this check stops later ones.
        if !may_keep() {
            return;
        }
        if idle.len() == MAX_IDLE {
            idle.remove(0);
        }
        idle.push(Idle {
            to: to.clone(),
            side,
            seen: false,
        });
    }

    /// Takes a connection to the node `to` on which nothing came meanwhile. FIN, RST and unsolicited bytes all make
    /// it useless.
    pub fn take(&self, to: &Arc<IdleAtNode>) -> Option<Side> {
        let mut idle = self.idle.lock();
        while let Some(i) = idle.iter().rposition(|i| Arc::ptr_eq(&i.to, to)) {
            let Idle { side, seen, .. } = idle.swap_remove(i);
            // If the runtime has polled the socket and finds it silent, it is; in every other case the kernel is
            // asked. A pipelined request follows at once, without such a poll.
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

    /// Closes the idle upstreams to one node.
    fn close(&self, to: &IdleAtNode) {
        self.idle
            .lock()
            .retain(|i| !std::ptr::eq(Arc::as_ptr(&i.to), to));
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
        let known = Arc::<IdleAtNode>::default();
        for said in [None, Some(""), Some("x")] {
            let idle = Arc::<IdleUpstreams>::default();
            let (mut node, mut side) = pair().await;
            node.write_all(b"answer").await.expect("send");
            assert_eq!(side.read(&mut [0; 64]).await.expect("an answer"), 6);
            let node = node.into_std().expect("a socket");
            idle.keep(&known, side, || true);
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
