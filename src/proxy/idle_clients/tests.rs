//! Crowds of connections without sockets.

use super::*;
use crate::stream::client_share::{ClientShares, ShareLimits};

struct Rig {
    shares: Arc<ClientShares>,
    sorted: Sorted,
    now: u64,
    /// The client and place of each connection.
    open: Vec<(Arc<ClientShare>, Arc<Place>)>,
}

impl Rig {
    fn new() -> Rig {
        let limits = ShareLimits::of(1.0, usize::MAX >> 2, usize::MAX >> 2, usize::MAX >> 2);
        Rig {
            shares: ClientShares::new(limits, 1),
            sorted: Sorted::default(),
            now: 1,
            open: Vec::new(),
        }
    }

    /// Opens a connection of client `n`; returns its number.
    fn open(&mut self, n: u8) -> usize {
        self.now += 1;
        let share = self.shares.of(IpAddr::from([192, 0, 2, n]));
        let place = Arc::new(Place::new(Micros(self.now)));
        self.sorted.enter(&share, &place);
        self.open.push((share, place));
        self.open.len() - 1
    }

    fn begin(&self, at: usize) {
        self.open[at].1.begin_flow();
    }

    fn end(&mut self, at: usize) {
        self.now += 1;
        let (share, place) = &self.open[at];
        assert!(place.end_flow(Micros(self.now)));
        if share.is_unlisted.swap(false, Ordering::SeqCst) {
            self.sorted.list(share.client);
        }
    }

    /// Closes one for a client with `own` connections; returns the number of the closed connection.
    fn close(&mut self, own: usize) -> Option<usize> {
        self.now += 1_000_000;
        let before: Vec<bool> = self.open.iter().map(|(_, p)| is_told(p)).collect();
        let told = self.sorted.close_one(own, 1, Micros(self.now));
        let after = self.open.iter().map(|(_, p)| is_told(p));
        let closed: Vec<usize> = (0..)
            .zip(before.into_iter().zip(after))
            .filter_map(|(n, (before, after))| (before != after).then_some(n))
            .collect();
        assert_eq!(closed.len(), usize::from(told), "one at a time");
        let closed = closed.first().copied()?;
        let (share, place) = &self.open[closed];
        self.sorted.leave(share.client, place);
        Some(closed)
    }
}

fn is_told(place: &Place) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    place.poll_told(&mut cx).is_ready()
}

/// Aim: the client with most loses its longest idle connections, in their order, until another has as many.
/// Fails if age alone decides, or number alone.
#[test]
fn the_longest_idle_of_the_client_with_most_goes() {
    let mut rig = Rig::new();
    let old = [rig.open(1), rig.open(1)];
    let many: Vec<usize> = (0..6).map(|_| rig.open(2)).collect();
    rig.begin(many[0]);
    rig.end(many[0]);
    for expected in [many[1], many[2], many[3], many[4]] {
        assert_eq!(rig.close(1), Some(expected));
    }
    assert_eq!(rig.close(1), Some(old[0]), "both have two, and it is older");
}

/// Aim: a live flow never goes. A client without an idle connection hides no other, and is found again when a
/// flow of it has ended. Fails if a client leaves the list for good, or a connection with a flow is told.
#[test]
fn live_flows_stay() {
    let mut rig = Rig::new();
    let busy: Vec<usize> = (0..200).map(|n| rig.open(n)).collect();
    let more: Vec<usize> = (0..200).map(|n| rig.open(n)).collect();
    busy.iter().chain(&more).for_each(|at| rig.begin(*at));
    let idle = rig.open(250);
    // Each call looks at a bounded number of clients.
    let closed: Vec<usize> = (0..8).filter_map(|_| rig.close(1)).collect();
    assert_eq!(closed, [idle]);
    rig.end(more[7]);
    assert_eq!(rig.close(1), Some(more[7]));
    assert_eq!(rig.close(1), None);
}

/// Aim: a client that has most gets no room from others; a browser does. Fails if an address with many live
/// flows closes the idle connections of all others.
#[test]
fn a_client_with_most_gets_no_room() {
    let mut rig = Rig::new();
    let live: Vec<usize> = (0..20).map(|_| rig.open(1)).collect();
    live.iter().for_each(|at| rig.begin(*at));
    let idle = rig.open(2);
    assert_eq!(rig.close(21), None);
    assert_eq!(rig.close(6), Some(idle));
}

/// Aim: among clients with one connection each, one of the longer idle ones goes, and never the newest of
/// many. Fails if the order in the list decides.
#[test]
fn among_equals_age_decides() {
    let mut rig = Rig::new();
    let all: Vec<usize> = (0..200).map(|n| rig.open(n)).collect();
    let mut gone: Vec<usize> = (0..50).filter_map(|_| rig.close(1)).collect();
    gone.sort_unstable();
    assert_eq!(gone.len(), 50);
    let mean = gone.iter().sum::<usize>() / gone.len();
    assert!(mean < 80, "{mean} of {}: {gone:?}", all.len());
}

/// Aim: the lists stay in step while connections come and go. Fails if a position is not moved along.
#[test]
fn connections_come_and_go() {
    let mut rig = Rig::new();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        match random.u8(..4) {
            0 if !rig.open.is_empty() => {
                let at = random.usize(..rig.open.len());
                let (share, place) = rig.open.swap_remove(at);
                rig.sorted.leave(share.client, &place);
            }
            _ => drop(rig.open(random.u8(..9))),
        }
        if random.u8(..8) == 0 && rig.close(1).is_some() {
            rig.open.retain(|(_, place)| !is_told(place));
        }
        let sorted = &rig.sorted;
        let held: usize = sorted.known.values().map(|c| c.places.len()).sum();
        assert_eq!(held, rig.open.len());
        for (client, crowd) in &sorted.known {
            let at = crowd.at.expect("all are idle");
            assert_eq!(sorted.by_count[crowd.places.len()][at], *client);
            for (n, place) in crowd.places.iter().enumerate() {
                assert_eq!(place.at.load(Ordering::Relaxed), n);
            }
        }
        let listed: usize = sorted.by_count.iter().map(Vec::len).sum();
        assert_eq!(listed, sorted.known.len());
    }
    for (share, place) in std::mem::take(&mut rig.open) {
        rig.sorted.leave(share.client, &place);
    }
    assert!(rig.sorted.known.is_empty() && rig.sorted.by_count.is_empty());
}
