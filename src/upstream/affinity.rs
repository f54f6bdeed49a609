//! The upstream connections of one client connection: re-used for its later requests, never for
//! another client's, and closed when it closes. A connection is its node's, not its name's: a reload may
//! have put another node at that name.
//!
//! Source: Diffusion load balancers, "Connection pooling" and "Reuse TCP connection".

use std::io;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use tokio::io::Interest;

use super::Node;
use crate::stream::side::Side;

/// Idle upstream connections of one client connection. Dropping it closes them.
#[derive(Default)]
pub struct Affinity {
    idle: Mutex<Vec<(Arc<Node>, Side)>>,
}

/// Most idle upstreams of one client connection: HTTP/2 may leave one for each parallel stream.
const MAX_IDLE: usize = 16;

impl Affinity {
    /// Keeps a connection whose last answer is complete, if any is to be kept to that node, unless the node has
    /// said more than that: TLS may have decrypted the answer's end and bytes behind it as one record, of which
    /// no socket knows.
    pub fn put(self: &Arc<Self>, node: &Arc<Node>, side: Side) {
        let side = side.untapped();
        if side.ssl().is_some_and(|ssl| ssl.pending() > 0) || !self.watch(&side) {
            return;
        }
        let mut idle = self.idle.lock();
        // Under the lock: a node that falls now closes what was put before, and this sees what was not.
        if !node.may_keep() {
            return;
        }
        if idle.len() == MAX_IDLE {
            idle.remove(0);
        }
        idle.push((node.clone(), side));
    }

    /// Takes a connection to `node` on which nothing came meanwhile: FIN, RST and unasked bytes all make it
    /// useless.
    pub fn take(&self, node: &Arc<Node>) -> Option<Side> {
        let mut idle = self.idle.lock();
        while let Some(i) = idle.iter().rposition(|(n, _)| Arc::ptr_eq(n, node)) {
            let (_, side) = idle.swap_remove(i);
            if is_silent(&side) {
                return Some(side);
            }
        }
        None
    }

    /// Has `side` closed as soon as the node ends it, or says what nobody asked for: it would keep a
    /// descriptor for as long as its client is silent. False if it is of no use already.
    fn watch(self: &Arc<Self>, side: &Side) -> bool {
        let waker = Waker::from(Arc::new(Watcher(Arc::downgrade(self))));
        let mut cx = Context::from_waker(&waker);
        if side.tcp().has_ahead() {
            return false;
        }
        while let Poll::Ready(ready) = side.tcp().poll_readable(&mut cx) {
            // Mostly it was read to the last byte, which the runtime could not know.
            let stream = side.tcp().stream();
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

    /// Closes what is of no use any more.
    fn sweep(&self) {
        let useless = |(_, side): &mut (Arc<Node>, Side)| !is_silent(side);
        let gone: Vec<_> = self.idle.lock().extract_if(.., useless).collect();
        drop(gone);
    }

    /// Closes all.
    pub fn close_all(&self) {
        *self.idle.lock() = Vec::new();
    }

    /// Closes what is idle towards `node`.
    pub fn close(&self, node: &Node) {
        self.idle
            .lock()
            .retain(|(n, _)| !std::ptr::eq(Arc::as_ptr(n), node));
    }
}

/// Woken when something comes on an idle connection.
struct Watcher(Weak<Affinity>);

impl Wake for Watcher {
    fn wake(self: Arc<Self>) {
        if let Some(affinity) = self.0.upgrade() {
            affinity.sweep();
        }
    }
}

/// Whether the connection is open and has nothing to read. The kernel is asked: the runtime knows of what
/// came only once it has waited for it.
fn is_silent(side: &Side) -> bool {
    let (mut byte, flags) = ([0u8; 1], libc::MSG_PEEK | libc::MSG_DONTWAIT);
    // SAFETY: the descriptor is open and `byte` has room for the one byte asked for.
    let got = unsafe { libc::recv(side.tcp().fd(), byte.as_mut_ptr().cast(), 1, flags) };
    got < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::pair;
    use std::io::Write;
    use std::net::Shutdown;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What comes while the runtime does not look (a pipelined request is served in the same breath as the
    /// one before) is seen all the same: an end, bytes nobody asked for. Red if only the runtime is asked.
    #[tokio::test]
    async fn what_came_unseen_is_seen() {
        let conf = serde_yaml::from_str("{ address: 10.0.0.1:80 }").expect("a node");
        let known = Node::new("n", &conf, crate::config::OnDown::Evict, None);
        for said in [None, Some(""), Some("x")] {
            let affinity = Arc::<Affinity>::default();
            let (mut node, mut side) = pair().await;
            node.write_all(b"answer").await.expect("send");
            assert_eq!(side.read(&mut [0; 64]).await.expect("an answer"), 6);
            let node = node.into_std().expect("a socket");
            affinity.put(&known, side);
            // Without an await: the runtime polls nothing meanwhile.
            match said {
                None => {}
                Some("") => node.shutdown(Shutdown::Write).expect("an end"),
                Some(bytes) => (&node).write_all(bytes.as_bytes()).expect("bytes"),
            }
            assert_eq!(affinity.take(&known).is_some(), said.is_none(), "{said:?}");
        }
    }
}
