//! Finds the client connection to close when room runs short: the longest idle one of the client that has
//! the most.
//!
//! In: connections by client, and their places. Out: one that is told to close. A live flow never goes. The
//! cost of an accept does not grow with the number of connections: clients are sorted by their number of
//! connections as these come and go, a list of a client's oldest serves a quarter of its idle connections,
//! and it is made anew at a bounded pace.
//! Source: FAULTS D54, D58; issue "one client cannot shut out all others".

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::place::{Micros, Place};
use crate::stream::client_share::ClientShare;

/// The client connections of this process, by client.
#[derive(Default)]
pub struct IdleClients {
    clients: Mutex<Sorted>,
}

/// Clients, sorted by their number of connections.
#[derive(Default)]
struct Sorted {
    known: HashMap<IpAddr, Crowd>,
    /// The clients with `n` connections at position `n`, except those that had none idle.
    by_count: Vec<Vec<IpAddr>>,
}

/// The connections of one client.
struct Crowd {
    share: Arc<ClientShare>,
    places: Vec<Arc<Place>>,
    /// Its position among the clients with as many connections; `None`: it had none idle.
    at: Option<usize>,
    /// Its longest idle connections, the oldest first.
    oldest: VecDeque<(Micros, Arc<Place>)>,
    /// No earlier than this, `oldest` is made anew.
    after: Micros,
}

/// Whether a client has an idle connection.
enum Oldest {
    /// Its longest idle one is idle since then.
    Since(Micros),
    /// It has none.
    None,
    /// Nobody has looked for a while, and nobody may yet.
    Unknown,
}

/// Clients with equally many connections that are compared for the longest idle one.
const COMPARED: usize = 16;
/// Clients looked at before the new connection is refused instead.
const LOOKS: usize = 64;
/// A client with no more connections than a browser may close those of clients that have fewer.
pub const BROWSER: usize = 8;

impl IdleClients {
    /// Adds a connection of the client with `share`.
    pub fn enter(&self, share: &Arc<ClientShare>, place: &Arc<Place>) {
        self.clients.lock().enter(share, place);
    }

    /// Removes a connection.
    pub fn leave(&self, share: &ClientShare, place: &Place) {
        self.clients.lock().leave(share.client, place);
    }

    /// Notes that a connection of `share` is idle.
    pub fn is_idle(&self, share: &ClientShare) {
        // Locked only if the client had no idle connection when somebody last looked.
        if share.is_unlisted.load(Ordering::SeqCst)
            && share.is_unlisted.swap(false, Ordering::SeqCst)
        {
            self.clients.lock().list(share.client);
        }
    }

    /// Tells the longest idle connection of the client with most to close. `own`: the number of connections,
    /// with the new one, of the client that needs the room; if it has most, and is no browser, it gets none.
    /// Only clients with `least` connections or more make room. Returns whether one was told.
    pub fn close_one(&self, own: usize, least: usize) -> bool {
        self.clients.lock().close_one(own, least, Micros::now())
    }
}

impl Sorted {
    fn enter(&mut self, share: &Arc<ClientShare>, place: &Arc<Place>) {
        let client = share.client;
        self.unlist(client);
        let crowd = self.known.entry(client).or_insert_with(|| Crowd {
            share: share.clone(),
            places: Vec::new(),
            at: None,
            oldest: VecDeque::new(),
            after: Micros(0),
        });
        place.at.store(crowd.places.len(), Ordering::Relaxed);
        crowd.places.push(place.clone());
        share.is_unlisted.store(false, Ordering::SeqCst);
        self.list(client);
    }

    fn leave(&mut self, client: IpAddr, place: &Place) {
        // It may stand among the oldest still.
        place.gone();
        let was_listed = self.unlist(client);
        let Some(crowd) = self.known.get_mut(&client) else {
            return;
        };
        let at = place.at.load(Ordering::Relaxed);
        if at < crowd.places.len() {
            crowd.places.swap_remove(at);
        }
        if let Some(moved) = crowd.places.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
        if crowd.oldest.len() > crowd.places.len() {
            // Those that left on their own; no more of them are kept than connections are open.
            crowd.oldest.clear();
        }
        match crowd.places.is_empty() {
            true => drop(self.known.remove(&client)),
            false if was_listed => self.list(client),
            false => {}
        }
    }

    /// Adds a client to those with as many connections.
    fn list(&mut self, client: IpAddr) {
        let Some(crowd) = self.known.get_mut(&client).filter(|c| c.at.is_none()) else {
            return;
        };
        let count = crowd.places.len();
        if self.by_count.len() <= count {
            self.by_count.resize_with(count + 1, Vec::new);
        }
        if let Some(equal) = self.by_count.get_mut(count) {
            crowd.at = Some(equal.len());
            equal.push(client);
        }
    }

    /// Removes a client from those with as many connections. Returns whether it was there.
    fn unlist(&mut self, client: IpAddr) -> bool {
        let Some(crowd) = self.known.get_mut(&client) else {
            return false;
        };
        let count = crowd.places.len();
        let (Some(at), Some(equal)) = (crowd.at.take(), self.by_count.get_mut(count)) else {
            return false;
        };
        if at < equal.len() {
            equal.swap_remove(at);
        }
        let moved = equal.get(at).copied();
        if let Some(moved) = moved.and_then(|moved| self.known.get_mut(&moved)) {
            moved.at = Some(at);
        }
        while self.by_count.last().is_some_and(Vec::is_empty) {
            self.by_count.pop();
        }
        true
    }

    fn close_one(&mut self, own: usize, least: usize, now: Micros) -> bool {
        let mut looks = LOOKS;
        let mut count = self.by_count.len();
        while count > 1 && looks > 0 {
            count -= 1;
            if count < least || (own > BROWSER && count < own) {
                return false;
            }
            while looks > 0 {
                let Some(compared) = self.sample(count, COMPARED.min(looks)) else {
                    break;
                };
                looks = looks.saturating_sub(compared.len());
                match self.longest_idle(&compared, now) {
                    Found::One(crowd) => {
                        if crowd.tell_oldest() {
                            return true;
                        }
                        // A flow began there meanwhile.
                    }
                    Found::Unlisted => {}
                    Found::None => break,
                }
            }
        }
        false
    }

    /// Returns up to `most` of the clients with `count` connections: all of them, or some that chance chooses.
    fn sample(&self, count: usize, most: usize) -> Option<Vec<IpAddr>> {
        let equal = self.by_count.get(count).filter(|equal| !equal.is_empty())?;
        if equal.len() <= most {
            return Some(equal.clone());
        }
        let some = (0..most).filter_map(|_| equal.get(fastrand::usize(..equal.len())));
        Some(some.copied().collect())
    }

    /// Finds the client whose oldest connection is idle for longest. Clients without one leave the list.
    fn longest_idle(&mut self, compared: &[IpAddr], now: Micros) -> Found<'_> {
        let (mut best, mut unlisted) = (None, false);
        for client in compared {
            match self.known.get_mut(client).map(|crowd| crowd.oldest(now)) {
                Some(Oldest::Since(since)) => {
                    best = best.into_iter().chain([(since, *client)]).min();
                }
                Some(Oldest::None) => unlisted |= self.unlist(*client),
                Some(Oldest::Unknown) | None => {}
            }
        }
        let crowd = best.and_then(|(_, client)| self.known.get_mut(&client));
        match crowd {
            Some(crowd) => Found::One(crowd),
            None if unlisted => Found::Unlisted,
            None => Found::None,
        }
    }
}

/// The outcome of a comparison.
enum Found<'a> {
    One(&'a mut Crowd),
    /// None of them has an idle connection, and some are no longer in the list.
    Unlisted,
    None,
}

impl Crowd {
    /// Looks for its longest idle connection.
    fn oldest(&mut self, now: Micros) -> Oldest {
        while let Some((since, place)) = self.oldest.front() {
            if place.idle_since() == Some(*since) {
                return Oldest::Since(*since);
            }
            self.oldest.pop_front();
        }
        if now < self.after {
            return Oldest::Unknown;
        }
        // Some 20 ns a connection: at most a fiftieth of one core's time goes here.
        self.after = Micros(now.0 + self.places.len() as u64);
        // Set before the look: a connection that is idle from now on takes it back and lists the client.
        self.share.is_unlisted.store(true, Ordering::SeqCst);
        let idle = self.places.iter();
        let idle = idle.filter_map(|place| Some((place.idle_since()?, place)));
        let mut idle: Vec<(Micros, &Arc<Place>)> = idle.collect();
        if idle.is_empty() {
            return Oldest::None;
        }
        self.share.is_unlisted.store(false, Ordering::SeqCst);
        // A quarter, so that the next closes need no look.
        let kept = idle.len().div_ceil(4);
        if kept < idle.len() {
            idle.select_nth_unstable_by_key(kept, |(since, _)| *since);
            idle.truncate(kept);
        }
        idle.sort_unstable_by_key(|(since, _)| *since);
        let oldest = idle.iter().map(|(since, place)| (*since, (*place).clone()));
        self.oldest = oldest.collect();
        self.oldest
            .front()
            .map_or(Oldest::None, |(since, _)| Oldest::Since(*since))
    }

    /// Tells its longest idle connection to close. False: a flow began there meanwhile.
    fn tell_oldest(&mut self) -> bool {
        let oldest = self.oldest.pop_front();
        oldest.is_some_and(|(since, place)| place.tell(since))
    }
}

#[cfg(test)]
mod tests;
