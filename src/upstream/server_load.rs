//! Counts the live flows of a node, and of the server it belongs to, whose other sockets are nodes too.
//!
//! In: flows that begin and end, and how many the other edges of the site have. Out: the counts by which the
//! balancer compares. A server may take session creations on one port and the rest on another (Lightstreamer
//! clustering §3.2.2.1); by the flows of one port alone a server that returns would seem as full as the others, or
//! as empty. So it would by the flows of one edge alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

/// The flows of one node.
#[derive(Default)]
struct Counts {
    /// Live at this edge.
    here: AtomicUsize,
    /// Live at the other edges of the site, when they last said so.
    elsewhere: AtomicUsize,
    /// Live at this edge at that moment.
    here_then: AtomicUsize,
    /// Number of other edges that take clients.
    others: AtomicUsize,
}

impl Counts {
    fn of_site(&self) -> usize {
        self.here.load(Ordering::Relaxed) + self.elsewhere.load(Ordering::Relaxed)
    }

    /// Counts what the site has by now, as far as this edge can guess: the others have been given as many new flows as
    /// this one since they said what they have. Otherwise each edge would fill the emptiest node by itself, and in a
    /// storm all clients of a second would go to one node.
    fn guessed(&self) -> usize {
        let (here, of_site) = (self.here.load(Ordering::Relaxed), self.of_site());
        match self.others.load(Ordering::Relaxed) {
            0 => of_site,
            others => {
                let then = self.here_then.load(Ordering::Relaxed);
                let more = of_site + others * here.saturating_sub(then);
                more.saturating_sub(others * then.saturating_sub(here))
            }
        }
    }
}

/// The live flows of one node, and the counts of its server's other nodes.
#[derive(Default)]
pub struct ServerLoad {
    counts: Arc<Counts>,
    others: ArcSwap<Vec<Arc<Counts>>>,
    /// Whether there are others. Most nodes have none, and a pick asks each node.
    shares: AtomicBool,
}

impl ServerLoad {
    /// Counts the live flows of the node at this edge.
    pub fn live(&self) -> usize {
        self.counts.here.load(Ordering::Relaxed)
    }

    /// Counts the live flows of the node at all edges of the site. Those of the others are up to two seconds old.
    pub fn of_site(&self) -> usize {
        self.counts.of_site()
    }

    /// Counts the live flows of the node's server at all edges of the site, this node's included, for the balancer.
    /// Of the other edges it is a guess between two counts.
    pub fn of_server(&self) -> usize {
        self.sum(Counts::guessed)
    }

    /// As [`ServerLoad::of_server`], without a guess: as the other edges have told.
    pub fn of_server_as_told(&self) -> usize {
        self.sum(Counts::of_site)
    }

    fn sum(&self, of: fn(&Counts) -> usize) -> usize {
        if !self.shares.load(Ordering::Relaxed) {
            return of(&self.counts);
        }
        let others = self.others.load();
        of(&self.counts) + others.iter().map(|other| of(other)).sum::<usize>()
    }

    /// Counts the live flows of the node at the other edges of the site.
    pub fn elsewhere(&self) -> usize {
        self.counts.elsewhere.load(Ordering::Relaxed)
    }

    /// Sets how many flows the other edges of the site have at the node, of which `others` take clients.
    pub fn set_elsewhere(&self, flows: usize, others: usize) {
        let counts = &self.counts;
        counts.here_then.store(self.live(), Ordering::Relaxed);
        counts.elsewhere.store(flows, Ordering::Relaxed);
        counts.others.store(others, Ordering::Relaxed);
    }

    /// Counts a flow that begins.
    pub fn enter(&self) {
        self.counts.here.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a flow that ends.
    pub fn leave(&self) {
        self.counts.here.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes one server of this node and `others`, which does not include it.
    pub fn join<'a>(&self, others: impl Iterator<Item = &'a ServerLoad>) {
        let others: Vec<_> = others.map(|other| other.counts.clone()).collect();
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

    /// Fails if the flows of other edges do not count where nodes are compared, or count as this edge's own.
    #[test]
    fn the_flows_of_other_edges_count() {
        let [s, cr] = [(); 2].map(|()| ServerLoad::default());
        s.join([&cr].into_iter());
        s.enter();
        s.set_elsewhere(5, 2);
        cr.set_elsewhere(7, 0);
        assert_eq!((s.live(), s.of_site(), s.of_server()), (1, 6, 13));
        // Two other edges have as many new ones, as far as this one can guess.
        s.enter();
        assert_eq!((s.of_site(), s.of_server()), (7, 16));
        s.leave();
        s.leave();
        assert_eq!((s.of_site(), s.of_server()), (5, 10));
        s.enter();
        s.set_elsewhere(0, 0);
        assert_eq!((s.of_site(), s.of_server(), cr.of_server()), (1, 8, 7));
    }
}
