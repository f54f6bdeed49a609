//! The upstream connections of one client connection: re-used for its later requests, never for
//! another client's, and closed when it closes.
//!
//! Source: Diffusion load balancers, "Connection pooling" and "Reuse TCP connection".

use parking_lot::Mutex;
use pushgate_plugins::api::NodeId;

use crate::stream::side::Side;

/// Idle upstream connections of one client connection. Dropping it closes them.
#[derive(Default)]
pub struct Affinity {
    idle: Mutex<Vec<(NodeId, Side)>>,
}

/// Most idle upstreams of one client connection: HTTP/2 may leave one for each parallel stream.
const MAX_IDLE: usize = 16;

impl Affinity {
    /// Keeps a connection whose last answer is complete.
    pub fn put(&self, node: NodeId, side: Side) {
        let side = side.untapped();
        let mut idle = self.idle.lock();
        if idle.len() == MAX_IDLE {
            idle.remove(0);
        }
        idle.push((node, side));
    }

    /// Takes a connection to `node` that the node has not closed meanwhile.
    pub fn take(&self, node: NodeId) -> Option<Side> {
        let mut idle = self.idle.lock();
        while let Some(i) = idle.iter().rposition(|(n, _)| *n == node) {
            let (_, side) = idle.swap_remove(i);
            if still_open(&side) {
                return Some(side);
            }
        }
        None
    }

    /// Closes all.
    pub fn close_all(&self) {
        *self.idle.lock() = Vec::new();
    }

    /// Closes what is idle towards `node`.
    pub fn close(&self, node: NodeId) {
        self.idle.lock().retain(|(n, _)| *n != node);
    }
}

/// An idle connection has nothing to read: FIN, RST and unasked bytes all make it useless.
fn still_open(side: &Side) -> bool {
    let mut byte = [0u8; 1];
    let read = side.tcp().stream().try_read(&mut byte);
    matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}
