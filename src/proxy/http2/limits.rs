//! What one HTTP/2 client may send that costs it nothing: resets, pings, settings and empty frames.
//!
//! In: the frames of a connection. Out: the limit that one of them exceeds.
//! Source: RFC 9113 §10.5; CVE-2019-9511 to 9518, CVE-2023-44487 (rapid reset), CVE-2025-8671 (MadeYouReset).

use std::time::Instant;

use crate::config::Http2Limits;
use crate::config::units::Rate;
use crate::upstream::flow_limiter::TokenBucket;

/// The limit that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Streams that the client reset, or made us reset.
    Resets,
    /// PING frames.
    Pings,
    /// SETTINGS frames.
    Settings,
    /// DATA frames without data. PRIORITY and WINDOW_UPDATE cost no more than the bytes they are made of.
    Empty,
}

impl Exceeded {
    /// Its word in metrics and logs: that of the key in `limits.http2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Exceeded::Resets => "resets",
            Exceeded::Pings => "pings",
            Exceeded::Settings => "settings",
            Exceeded::Empty => "empty_frames",
        }
    }
}

/// Seconds in which as many frames as a limit names may come.
const WITHIN: u32 = 10;

/// The counts of one connection; made with its first such frame, because most clients send few.
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
    /// Errors: it is one too many.
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

    /// How many of `n` frames pass, one each `every`.
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

    /// Fails if as many as the limit do not pass at once, or if frames at the pace of the limit ever end a
    /// connection, or if a paced flood never does.
    #[test]
    fn a_limit_holds_for_bursts_and_for_paced_frames() {
        for (most, n, every_ms, expected) in [
            (50, 1_000, 0, 50),
            (10, 1_000, 0, 10),
            // 50 in 10 s are 5 a second.
            (50, 10_000, 200, 10_000),
            (50, 10_000, 190, 10_000 / 10),
            // 100 streams opened and reset each 30 ms.
            (50, 1_000, 30, 58),
        ] {
            let got = passed(most, n, Duration::from_millis(every_ms));
            let what = format!("{most} in 10 s, one each {every_ms} ms");
            assert!(got.abs_diff(expected) <= expected / 50 + 1, "{what}: {got}");
        }
    }

    /// Fails if one kind of frame uses up the limit of another, or if a limit has another word than its key.
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
