//! Paces what clients begin: the connections and the requests of each client have a rate.
//!
//! In: a client's address, a rate, the time. Out: how long its next connection or request waits. What is over
//! the rate gets a later time than what came before, so it waits in a line of its own, in order.
//! One number for each client says until when it has used its rate up (the generic cell rate algorithm, a
//! token bucket of one word). The numbers have places in a table of fixed size, by a hash of the address. So
//! made-up addresses cost no memory, and a client that left is still known when it comes again; a map of those
//! who are here would give it a full bucket each time. Two clients may hit one place. Each has two places, and
//! the shorter wait counts, so that a client waits for another only if both places are the same.
//! Source: ITU-T I.371 (the algorithm); FAULTS D58; issue "one client cannot shut out all others".

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::units::Rate;

/// What has a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    /// Client connections.
    Connection,
    /// Requests of HTTP/1 and streams of HTTP/2.
    Request,
}

impl Paced {
    /// Returns how many begin at once.
    fn burst(self) -> u64 {
        match self {
            Paced::Connection => BURST,
            Paced::Request => BURST * DIALED,
        }
    }

    /// Returns the label value in metrics: the key's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Paced::Connection => "connection_rate_per_client",
            Paced::Request => "request_rate_per_client",
        }
    }
}

/// Begun at once by a client that was quiet: a browser's page with its pictures. A high rate has the worth of
/// [`BURST_TIME`] instead. Not more, because what a client begins at once stands in line in front of others.
/// Of requests four times as many, or as many that are dialed for.
const BURST: u64 = 20;
const BURST_TIME: Duration = Duration::from_millis(10);
/// Turns that a request takes if the edge connects to a node for it: it costs some 200 µs, any other 50 µs.
const DIALED: u64 = 4;

/// Places of each kind in each row. 128 KiB for a listener that has clients; a hundred hostile clients make
/// one other in 1,700 wait with them.
const PLACES: usize = 4096;
const ROWS: usize = 2;
/// The time at which a table is made, in nanoseconds. Above the longest burst, so that a client that never came
/// (0) has a full one, and no number is negative.
const START: u64 = 1 << 44;

/// The places of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places([u16; ROWS]);

/// Until when each client has used its rates up, in nanoseconds.
pub struct ClientPace {
    numbers: OnceLock<Box<[AtomicU64]>>,
    hash: RandomState,
    made: Instant,
}

impl Default for ClientPace {
    fn default() -> Self {
        ClientPace {
            numbers: OnceLock::new(),
            hash: RandomState::new(),
            made: Instant::now(),
        }
    }
}

impl ClientPace {
    /// Returns the places of `client`, which must be an address as clients are counted by.
    pub fn places(&self, client: IpAddr) -> Places {
        let hash = self.hash.hash_one(client);
        let place = |row: usize| (hash >> (16 * row)) as u16 % PLACES as u16;
        Places([place(0), place(1)])
    }

    /// Books the next connection or request of the client at `places`, at `rate`. Returns how long it must
    /// wait; `None`: not at all. One that ends before that time is given back ([`ClientPace::give_back`]).
    pub fn book(&self, what: Paced, places: Places, rate: Rate, now: Instant) -> Option<Duration> {
        let each = nanos(rate.interval());
        let now = START + nanos(now.saturating_duration_since(self.made));
        let spared = each.saturating_mul(what.burst()).max(nanos(BURST_TIME));
        let earliest = (now + each).saturating_sub(spared);
        let book = |number: &AtomicU64| {
            let next = |until: u64| until.saturating_add(each).max(earliest);
            // Relaxed: the number orders nothing else.
            let relaxed = Ordering::Relaxed;
            let before = number.fetch_update(relaxed, relaxed, |until| Some(next(until)));
            next(before.unwrap_or_else(|until| until))
        };
        let until = self.of(what, places).map(book).min()?;
        let wait = until.saturating_sub(now);
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    /// Charges a connection to a node to the client at `places`, whose request was booked at `rate`. That request
    /// goes on; the next ones wait the longer.
    pub fn charge_dial(&self, places: Places, rate: Rate) {
        let more = nanos(rate.interval()).saturating_mul(DIALED - 1);
        for number in self.of(Paced::Request, places) {
            number.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Gives back what was booked at `rate` and never began.
    pub fn give_back(&self, what: Paced, places: Places, rate: Rate) {
        let each = nanos(rate.interval());
        for number in self.of(what, places) {
            number.fetch_sub(each, Ordering::Relaxed);
        }
    }

    fn of(&self, what: Paced, places: Places) -> impl Iterator<Item = &AtomicU64> {
        let numbers = self.numbers.get_or_init(|| {
            let all = 0..2 * ROWS * PLACES;
            all.map(|_| AtomicU64::new(0)).collect()
        });
        let first = what as usize * ROWS * PLACES;
        let at = move |(row, place): (usize, u16)| {
            numbers.get(first + row * PLACES + usize::from(place))
        };
        places.0.into_iter().enumerate().filter_map(at)
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// Aim: a client begins a burst at once, then one each interval, in order; after a pause it has a burst
    /// again and no more. Fails if the burst is not bounded, or if waits do not grow.
    #[test]
    fn beyond_a_burst_each_waits_for_the_one_before() {
        let now = Instant::now();
        for (rate, burst, interval) in [
            ("100/s", None, 10 * MS),
            ("10000/s", Some(100), MS / 10),
            ("60/min", None, 1000 * MS),
        ] {
            let rate: Rate = rate.parse().expect("a rate");
            let pace = ClientPace::default();
            let at = pace.places(ip(1));
            for (what, now) in [
                (Paced::Connection, now + Duration::from_secs(3600)),
                (Paced::Request, now + Duration::from_secs(7200)),
                (Paced::Request, now + Duration::from_secs(10_800)),
            ] {
                let book = || pace.book(what, at, rate, now);
                for n in 0..burst.unwrap_or(what.burst()) {
                    assert_eq!(book(), None, "{rate} {what:?} {n}");
                }
                assert_eq!(book(), Some(interval), "{rate} {what:?}");
                assert_eq!(book(), Some(2 * interval), "{rate} {what:?}");
                let later = now + 4 * interval;
                assert_eq!(pace.book(what, at, rate, later), None, "two have passed");
            }
        }
    }

    /// Aim: of requests that are dialed for, a client begins as many at once as connections, then one in four
    /// intervals. Fails if a dial is free, or if it is charged more than once.
    #[test]
    fn a_dial_takes_the_turns_of_three_requests() {
        let (pace, now) = (ClientPace::default(), Instant::now());
        let (at, rate) = (pace.places(ip(1)), Rate::a_second(100));
        let dialed = || {
            let wait = pace.book(Paced::Request, at, rate, now);
            pace.charge_dial(at, rate);
            wait
        };
        assert!((0..BURST).all(|_| dialed().is_none()));
        assert_eq!((dialed(), dialed()), (Some(10 * MS), Some(50 * MS)));
    }

    /// Aim: clients do not wait for one another, nor requests for connections, and what was given back is
    /// free again. Fails if all use one number, or if a client that gives up makes the next one wait.
    #[test]
    fn each_client_has_a_line_of_its_own() {
        let (pace, now) = (ClientPace::default(), Instant::now());
        let rate = Rate::a_second(100);
        let book = |n, what| pace.book(what, pace.places(ip(n)), rate, now);
        let waits: Vec<_> = (0..1000).map(|_| book(1, Paced::Connection)).collect();
        assert_eq!(waits.last(), Some(&Some(9800 * MS)));
        assert_eq!(book(1, Paced::Request), None);
        let waiting = (2..=250).filter(|n| book(*n, Paced::Connection).is_some());
        assert_eq!(waiting.count(), 0, "both places of another");
        for _ in 0..980 {
            pace.give_back(Paced::Connection, pace.places(ip(1)), rate);
        }
        assert_eq!(book(1, Paced::Connection), Some(10 * MS));
    }
}
