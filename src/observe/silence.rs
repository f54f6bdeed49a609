//! Remembers how long connections had been silent when their peer was lost, and names the limit of a device between.
//!
//! In: losses, by listener and peer. Out: the silence after which most of them come, if there is one, and the
//! keep-alive that prevents them. A firewall or a NAT that forgets silent connections after 300 s tells nobody. The
//! loss shows with the next message, so losses gather just above its limit.
//! Source: Diffusion load balancers, "Load balancer closing silent connections".

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

/// Losses that are remembered for each listener and peer, the last ones.
const MOST: usize = 1024;
/// Shortest silence that can be a device's limit. Clients that leave while bytes pass are lost after less.
const LONG: Duration = Duration::from_secs(10);
/// Fewest losses after a long silence that show a limit.
const FEWEST: usize = 5;
/// A limit is a tenth of itself wide, and 2 s more: the time until the next message, and until the loss was found.
const WIDTH: (u32, Duration) = (10, Duration::from_secs(2));

/// Where connections were lost.
type Place = (String, &'static str);

static LOSSES: Mutex<BTreeMap<Place, Losses>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Losses {
    /// The last silences.
    recent: VecDeque<Duration>,
    total: u64,
    /// The keep-alive of the last lost connection.
    keepalive: Duration,
}

/// Remembers the loss of a `peer` (`client` or `node`) after a silence. `keepalive`: silence before the first probe of
/// its socket.
pub fn note(listener: &str, peer: &'static str, silent: Duration, keepalive: Duration) {
    let mut all = LOSSES.lock();
    let losses = all.entry((listener.to_owned(), peer)).or_default();
    losses.total += 1;
    losses.keepalive = keepalive;
    losses.recent.push_back(silent);
    if losses.recent.len() > MOST {
        losses.recent.pop_front();
    }
}

/// The losses of one listener and peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The listener.
    pub listener: String,
    /// `client` or `node`.
    pub peer: &'static str,
    /// Losses since the start.
    pub total: u64,
    /// Losses among the last 1,024 that came after 10 s of silence or more.
    pub long: usize,
    /// The keep-alive of its sockets.
    pub keepalive: Duration,
    /// The silence after which most of them came.
    pub peak: Option<Peak>,
}

/// The silence after which most connections are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// The shortest and the longest silence of these losses.
    pub from: Duration,
    /// See `from`.
    pub to: Duration,
    /// How many losses.
    pub losses: usize,
}

/// Returns the losses of all listeners.
pub fn report() -> Vec<Report> {
    let all = LOSSES.lock();
    let one = |((listener, peer), losses): (&Place, &Losses)| {
        let long = losses.recent.iter().filter(|s| **s >= LONG);
        let mut long: Vec<Duration> = long.copied().collect();
        long.sort();
        Report {
            listener: listener.clone(),
            peer,
            total: losses.total,
            long: long.len(),
            keepalive: losses.keepalive,
            peak: peak(&long),
        }
    };
    all.iter().map(one).collect()
}

/// Finds the narrow range with at least half of the silences, which must be sorted.
fn peak(silences: &[Duration]) -> Option<Peak> {
    let within = |first: usize| {
        let from = silences[first];
        let end = from + from / WIDTH.0 + WIDTH.1;
        let last = silences.partition_point(|s| *s <= end) - 1;
        Peak {
            from,
            to: silences[last],
            losses: last + 1 - first,
        }
    };
    // Of equal ranges the first, because the limit is its beginning.
    let best = (0..silences.len())
        .rev()
        .map(within)
        .max_by_key(|p| p.losses)?;
    (silences.len() >= FEWEST && 2 * best.losses >= silences.len()).then_some(best)
}

impl Peak {
    /// Returns a keep-alive that is short enough: half of the limit, in round numbers.
    pub fn keepalive(&self) -> Duration {
        let half = self.from.as_secs() / 2;
        let step = match half {
            0..20 => 1,
            20..120 => 5,
            _ => 30,
        };
        Duration::from_secs((half / step * step).max(1))
    }
}

impl Report {
    /// Says in a sentence or two what the losses show, and what to do.
    pub fn advice(&self) -> String {
        let Report {
            listener,
            peer,
            total,
            long,
            ..
        } = self;
        let Some(peak) = self.peak else {
            return match *long >= FEWEST {
                true => format!(
                    "Listener {listener}: of {total} lost {peer} connections, {long} were lost after a silence of \
                     10 s or more, but after no particular time. No device's limit shows."
                ),
                false => format!(
                    "Listener {listener}: of {total} lost {peer} connections, {long} were lost after a silence of \
                     10 s or more. That is too few to show a device's limit."
                ),
            };
        };
        let (from, keepalive) = (peak.from.as_secs(), spelt(peak.keepalive()));
        let found = format!(
            "Listener {listener}: {} of {long} {peer} connections that were lost after a silence of 10 s or more were \
             lost after {from} to {} s. A device between the edge and its {peer}s, such as a firewall, forgets \
             connections that are silent for {from} s.",
            peak.losses,
            peak.to.as_secs()
        );
        let own = format!(
            "let the push server send a message at least each {keepalive} (Lightstreamer: keep-alive of the session; \
             Diffusion: system ping)"
        );
        let (key, now) = (key(peer), spelt(self.keepalive));
        match self.keepalive < peak.from {
            true => format!(
                "{found} TCP keep-alive after {now} does not prevent it, so the device counts only bytes: {own}."
            ),
            false => {
                format!("{found} Set {key}: {{ keepalive: {keepalive} }} (now {now}), or {own}.")
            }
        }
    }
}

/// Returns the key with the options of the sockets of a peer.
fn key(peer: &str) -> &'static str {
    match peer {
        "node" => "`tcp` of the node",
        _ => "`tcp` of the listener",
    }
}

fn spelt(span: Duration) -> String {
    format!("{}s", span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(all: &[u64]) -> Vec<Duration> {
        all.iter().map(|s| Duration::from_secs(*s)).collect()
    }

    /// Silences, the peak's beginning, end and losses, name.
    type Case = (&'static [u64], Option<(u64, u64, usize)>, &'static str);

    /// Aim: a limit shows where losses gather, in front of noise. Fails if few losses name a limit, if spread losses
    /// do, or if the range begins beyond the limit.
    #[test]
    fn a_limit_shows_where_losses_gather() {
        let cases: [Case; 6] = [
            (&[], None, "no losses"),
            (&[300, 300, 300, 300], None, "too few"),
            (
                &[300, 301, 301, 305, 312],
                Some((300, 312, 5)),
                "a firewall",
            ),
            (
                &[11, 40, 300, 300, 303, 330, 900],
                Some((300, 330, 4)),
                "with noise",
            ),
            (&[10, 20, 40, 80, 160, 320, 640], None, "spread"),
            (
                &[60, 60, 60, 350, 350, 350],
                Some((60, 60, 3)),
                "two: the shorter",
            ),
        ];
        for (silences, expected, name) in cases {
            let found = peak(&seconds(silences));
            let found = found.map(|p| (p.from.as_secs(), p.to.as_secs(), p.losses));
            assert_eq!(found, expected, "{name}");
        }
    }

    /// Aim: the keep-alive is well below the limit and easy to read. Fails if it is so near that a late message comes
    /// too late.
    #[test]
    fn a_keepalive_is_half_of_the_limit() {
        for (limit, keepalive) in [
            (10, 5),
            (60, 30),
            (100, 50),
            (300, 150),
            (350, 150),
            (3600, 1800),
        ] {
            let from = Duration::from_secs(limit);
            let peak = Peak {
                from,
                to: from,
                losses: 9,
            };
            assert_eq!(peak.keepalive(), Duration::from_secs(keepalive), "{limit}");
        }
    }

    /// Aim: the advice names the limit, the key and its value; where keep-alive is frequent enough already, the push
    /// server's own. Fails if an operator is told to set what he has.
    #[test]
    fn the_advice_names_limit_and_key() {
        for _ in 0..6 {
            note(
                "a",
                "client",
                Duration::from_secs(300),
                Duration::from_secs(600),
            );
            note(
                "b",
                "node",
                Duration::from_secs(60),
                Duration::from_secs(45),
            );
        }
        let advice: Vec<String> = report().iter().map(Report::advice).collect();
        let said = |n: usize, words: &str| assert!(advice[n].contains(words), "{advice:?}");
        said(0, "6 of 6 client connections");
        said(0, "silent for 300 s");
        said(
            0,
            "Set `tcp` of the listener: { keepalive: 150s } (now 600s)",
        );
        said(1, "TCP keep-alive after 45s does not prevent it");
        said(1, "a message at least each 30s");
    }

    /// Aim: memory is bounded. Fails if every loss is kept.
    #[test]
    fn the_last_losses_are_kept() {
        for n in 0..2 * MOST as u64 {
            note(
                "many",
                "client",
                Duration::from_secs(10 + n),
                Duration::from_secs(60),
            );
        }
        let all = report();
        let of = all.iter().find(|r| r.listener == "many").expect("losses");
        assert_eq!((of.total, of.long), (2 * MOST as u64, MOST));
    }
}
