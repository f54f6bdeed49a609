//! Limits the frames that an HTTP/2 client can send at no cost: resets, pings, settings and empty frames.
//!
//! In: the frames of a connection. Out: the limit that a frame exceeds.
//! Source: RFC 9113 §10.5; CVE-2019-9511 to 9518, CVE-2023-44487 (rapid reset), CVE-2025-8671 (MadeYouReset).

use std::time::Instant;

use crate::config::Http2Limits;
use crate::config::units::Rate;
use crate::upstream::flow_limiter::TokenBucket;

/// The limit that a client exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Streams that the client reset, or made us reset.
    Resets,
    /// PING frames.
    Pings,
    /// SETTINGS frames.
    Settings,
    /// DATA frames without data. PRIORITY and WINDOW_UPDATE need no limit: they cost no more than their own
    /// bytes.
    Empty,
}

impl Exceeded {
    /// Returns the label value in metrics and logs: the key's name in `limits.http2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Exceeded::Resets => "resets",
            Exceeded::Pings => "pings",
            Exceeded::Settings => "settings",
            Exceeded::Empty => "empty_frames",
        }
    }
}

/// Seconds in which a client may send as many frames as a limit allows.
const WITHIN: u32 = 10;

/// The counts of one connection. They are allocated with its first such frame, because most clients send few.
#[derive(Default)]
pub struct Counts(Option<Box<Buckets>>);

struct Buckets {
    resets: TokenBucket,
    pings: TokenBucket,
    settings: TokenBucket,
    empty: TokenBucket,
}

impl Counts {
    /// Counts one frame.
    ///
    /// Errors: the frame exceeds the limit.
    pub fn count(
        &mut self,
        what: Exceeded,
        limits: &Http2Limits,
        now: Instant,
    ) -> Result<(), Exceeded> {
        let buckets = self
            .0
            .get_or_insert_with(|| Box::new(Buckets::new(limits, now)));
        let bucket = match what {
            Exceeded::Resets => &mut buckets.resets,
            Exceeded::Pings => &mut buckets.pings,
            Exceeded::Settings => &mut buckets.settings,
            Exceeded::Empty => &mut buckets.empty,
        };
        match bucket.take(now) {
            true => Ok(()),
            false => Err(what),
        }
    }
}

impl Buckets {
    fn new(limits: &Http2Limits, now: Instant) -> Self {
        let bucket = |most: u32| {
            let rate = Rate::a_second(u64::from((most / WITHIN).max(1)));
            TokenBucket::with_burst(rate, f64::from(most), now)
        };
        Buckets {
            resets: bucket(limits.resets),
            pings: bucket(limits.pings),
            settings: bucket(limits.settings),
            empty: bucket(limits.empty_frames),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KINDS: [Exceeded; 4] = [
        Exceeded::Resets,
        Exceeded::Pings,
        Exceeded::Settings,
        Exceeded::Empty,
    ];

    fn limits(most: u32) -> Http2Limits {
        Http2Limits {
            resets: most,
            pings: most,
            settings: most,
            empty_frames: most,
            ..Http2Limits::default()
        }
    }

    /// Returns how many of `n` frames pass, one each `every`.
    fn passed(most: u32, n: u32, every: Duration) -> u32 {
        let (mut counts, mut now) = (Counts::default(), Instant::now());
        for i in 0..n {
            if counts.count(Exceeded::Resets, &limits(most), now).is_err() {
                return i;
            }
            now += every;
        }
        n
    }

    /// Aim: a limit holds for bursts and for paced frames. Fails if a burst as large as the limit does not
    /// pass, or if frames at the pace of the limit end a connection. Fails also if a faster flood never ends
    /// it.
    #[test]
    fn a_limit_holds_for_bursts_and_for_paced_frames() {
        for (most, n, every_ms, expected) in [
            (50, 1_000, 0, 50),
            (10, 1_000, 0, 10),
            // 50 in 10 s are 5 a second.
            (50, 10_000, 200, 10_000),
            (50, 10_000, 190, 10_000 / 10),
            // One stream opened and reset every 30 ms.
            (50, 1_000, 30, 58),
        ] {
            let got = passed(most, n, Duration::from_millis(every_ms));
            let what = format!("{most} in 10 s, one each {every_ms} ms");
            assert!(got.abs_diff(expected) <= expected / 50 + 1, "{what}: {got}");
        }
    }

    /// Aim: each kind of frame has its own limit. Fails if one kind uses up the limit of another, or if a
    /// limit's word differs from its key.
    #[test]
    fn each_kind_has_a_limit_of_its_own() {
        let now = Instant::now();
        let mut counts = Counts::default();
        for kind in KINDS {
            for _ in 0..10 {
                assert_eq!(counts.count(kind, &limits(10), now), Ok(()), "{kind:?}");
            }
            assert_eq!(counts.count(kind, &limits(10), now), Err(kind));
        }
        let words = KINDS.map(Exceeded::as_str);
        assert_eq!(words, ["resets", "pings", "settings", "empty_frames"]);
    }
}
