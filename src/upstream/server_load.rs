//! Counts the live flows of a node, and of the server it belongs to, whose other sockets are nodes too.
//!
//! In: flows that begin and end. Out: the counts by which the balancer compares. A server may take session
//! creations on one port and the rest on another (Lightstreamer clustering §3.2.2.1); by the flows of one port
//! alone a server that returns would seem as full as the others, or as empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

/// The live flows of one node, and the counts of its server's other nodes.
#[derive(Default)]
pub struct ServerLoad {
    live: Arc<AtomicUsize>,
    others: ArcSwap<Vec<Arc<AtomicUsize>>>,
    /// Whether there are others. Most nodes have none, and a pick asks each node.
    shares: AtomicBool,
}

impl ServerLoad {
    /// Counts the live flows of the node.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts the live flows of the node's server, this node's included.
    pub fn of_server(&self) -> usize {
        if !self.shares.load(Ordering::Relaxed) {
            return self.live();
        }
        let others = self.others.load();
        let of = |other: &Arc<AtomicUsize>| other.load(Ordering::Relaxed);
        self.live() + others.iter().map(of).sum::<usize>()
    }

    /// Counts a flow that begins.
    pub fn enter(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a flow that ends.
    pub fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes one server of this node and `others`, which does not include it.
    pub fn join<'a>(&self, others: impl Iterator<Item = &'a ServerLoad>) {
        let others: Vec<_> = others.map(|other| other.live.clone()).collect();
        let shares = !others.is_empty();
        self.others.store(Arc::new(others));
        self.shares.store(shares, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a socket's flows are counted twice, or not at all, or still after it was told apart.
    #[test]
    fn the_sockets_of_a_server_are_counted_together() {
        let [s, cr, other] = [(); 3].map(|()| ServerLoad::default());
        s.join([&cr].into_iter());
        cr.join([&s].into_iter());
        s.enter();
        cr.enter();
        cr.enter();
        other.enter();
        assert_eq!((s.live(), s.of_server(), cr.of_server()), (1, 3, 3));
        assert_eq!((other.live(), other.of_server()), (1, 1));
        cr.leave();
        s.join([].into_iter());
        assert_eq!((s.of_server(), cr.of_server()), (1, 2));
    }
}
