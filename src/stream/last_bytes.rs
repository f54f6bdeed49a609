//! Keeps connections to a node that were closed before the node acknowledged every byte.
//!
//! In: sockets that are about to close. Out: each closes once its last bytes have arrived, or is reset when
//! the node is lost. An orderly close would leave those bytes to the kernel, which goes on sending them to a
//! dead node for minutes. The reason of the close makes no difference: a client that gave up, an eviction, an
//! unanswered check.
//! Source: Diffusion load balancers, "TCP retransmission timeout"; FAULTS D60.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::kernel::{reset_on_close, resets_on_close, unacknowledged, unread};

/// The sockets of one node that were closed with unacknowledged bytes.
#[derive(Debug, Default)]
pub struct LastBytes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The node is lost: its unacknowledged bytes are of no use any more.
    lost: bool,
    /// A sweep task is running.
    swept: bool,
    sockets: Vec<(OwnedFd, Instant)>,
}

/// Time between two sweeps: a live node acknowledges within a round trip.
const PERIOD: Duration = Duration::from_millis(250);
/// Longest time a socket is kept. After that the kernel goes on alone: the node keeps its window shut, or has
/// no checks that would find it dead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most sockets kept for a node; the kernel gets further ones at once.
const MOST: usize = 1024;

impl LastBytes {
    /// Decides by `is_lost` whether the node is lost, under a lock, so that the last answer counts. For a
    /// lost node it resets the kept sockets, and later ones as they come.
    pub fn settle(&self, is_lost: impl FnOnce() -> bool) {
        let mut state = self.0.lock();
        state.lost = is_lost();
        if state.lost {
            for (socket, _) in state.sockets.drain(..) {
                reset_on_close(&socket);
            }
        }
    }

    /// Takes over the unacknowledged bytes of `stream`, which its owner then closes.
    pub fn leave(self: &Arc<Self>, stream: &TcpStream) {
        let fd = stream.as_raw_fd();
        // A close that resets, because it was set to or because bytes are unread, leaves no bytes behind.
        if unacknowledged(fd) == 0 || unread(fd) > 0 || resets_on_close(stream) {
            return;
        }
        let mut state = self.0.lock();
        if state.lost {
            return reset_on_close(stream);
        }
        let (Ok(runtime), false) = (Handle::try_current(), state.sockets.len() >= MOST) else {
            return;
        };
        let Ok(same) = stream.as_fd().try_clone_to_owned() else {
            return;
        };
        // The node must see the end when the owner closes, not when the last byte is acknowledged.
        let _ = SockRef::from(&same).shutdown(Shutdown::Write);
        state.sockets.push((same, Instant::now()));
        if !std::mem::replace(&mut state.swept, true) {
            runtime.spawn(sweep(self.clone()));
        }
    }
}

/// Closes sockets whose bytes have arrived, until no socket is left.
async fn sweep(last: Arc<LastBytes>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let mut state = last.0.lock();
        state.sockets.retain(|(socket, since)| {
            unacknowledged(socket.as_raw_fd()) > 0 && since.elapsed() < PATIENCE
        });
        if state.sockets.is_empty() {
            state.swept = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::pair_with;
    use crate::stream::graceful_close::poll_once;
    use crate::stream::side::Side;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A node that does not read, and our side of the connection with bytes that wait for it.
    async fn waiting(last: &Arc<LastBytes>) -> (TcpStream, Side) {
        let (node, mut side) = pair_with(4096).await;
        let small = SockRef::from(&node).set_recv_buffer_size(4096);
        small.expect("SO_RCVBUF");
        while poll_once(side.write_all(&[7; 4096])).await.is_some() {}
        assert!(side.unacknowledged() > 0);
        side.tcp_mut()
            .expect("a socket")
            .watch_toward(PATIENCE, last, None);
        (node, side)
    }

    /// Fails if a live node misses a byte, or if the socket is kept longer than needed.
    #[tokio::test]
    async fn a_node_that_lives_gets_its_last_bytes() {
        let last = Arc::<LastBytes>::default();
        let (mut node, side) = waiting(&last).await;
        drop(side);
        assert_eq!(last.0.lock().sockets.len(), 1);
        let end = node.read_to_end(&mut Vec::new()).await;
        assert!(end.expect("an orderly end") > 4096);
        while !last.0.lock().sockets.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!last.0.lock().swept);
    }

    /// Fails if bytes for a lost node stay in the kernel, closed before or after the loss, or if the node
    /// stays lost for ever.
    #[tokio::test]
    async fn a_lost_node_gets_nothing_more() {
        let last = Arc::<LastBytes>::default();
        let (mut before, side) = waiting(&last).await;
        drop(side);
        last.settle(|| true);
        let (mut after, side) = waiting(&last).await;
        drop(side);
        for node in [&mut before, &mut after] {
            let end = node.read_to_end(&mut Vec::new()).await;
            assert!(end.is_err(), "an orderly end");
        }
        assert!(last.0.lock().sockets.is_empty());
        last.settle(|| false);
        let (_node, side) = waiting(&last).await;
        drop(side);
        assert_eq!(last.0.lock().sockets.len(), 1);
    }

    /// Fails if a socket that must be reset is kept: its peer would not see the reset.
    #[tokio::test]
    async fn a_reset_is_a_reset() {
        let last = Arc::<LastBytes>::default();
        let (mut node, mut side) = waiting(&last).await;
        side.reset_on_close();
        drop(side);
        let end = node.read_to_end(&mut Vec::new()).await;
        assert!(end.is_err() && last.0.lock().sockets.is_empty());
    }
}
