//! Limits how many flows the balancer gives a node, and how fast: `max_flows`, `admit_rate`, `slow_start`.
//!
//! In: limits, the node's live flows, the time. Out: whether a flow may come now. Pure, so that a simulation
//! decides as the edge does. Sticky and pinned flows bypass the limiter, because they have no other node to go to;
//! for them only `max_flows_hard` counts ([`NodeLimits::is_full`](super::node_limits::NodeLimits::is_full)).
//! Source: FAULTS D65; Lightstreamer clustering §5.

use std::time::{Duration, Instant};

use super::site_share::{SiteShare, even};
pub use super::token_bucket::TokenBucket;
use crate::config::units::Rate;

/// Limits of a node; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Number of live flows from which on the balancer gives it no more.
    pub max_flows: Option<usize>,
    /// Number of live flows from which on it gets none at all, stuck and pinned ones included.
    pub max_flows_hard: Option<usize>,
    /// Most new flows a second.
    pub admit_rate: Option<Rate>,
    /// Most new flows a second after the node returned or joined, until it has caught up with its pool.
    pub slow_start: Option<Rate>,
}

/// Whether a flow may come. Ordered: the sooner it may come, the smaller the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// A flow may come now.
    Open,
    /// A flow may come after this time, unless others come first.
    In(Duration),
    /// A flow may come when another has ended.
    Full,
}

/// How late a waiting flow may be called, and how much later than another it may reach its node.
const LATE: Duration = Duration::from_millis(20);

fn bucket(rate: Rate, edges: usize, now: Instant) -> TokenBucket {
    TokenBucket::part(rate, edges, LATE, now).arriving(LATE)
}

/// The limits of a node, and how much of them is used.
#[derive(Clone, Debug)]
pub struct FlowLimiter {
    limits: Limits,
    share: SiteShare,
    admit: Option<TokenBucket>,
    ramp: Option<Ramp>,
}

/// A running slow start.
#[derive(Clone, Copy, Debug)]
struct Ramp {
    bucket: TokenBucket,
    began: Instant,
    /// When it last held a flow back; before that, when the first flow asked.
    held: Option<Instant>,
}

/// A slow start ends after it held no flow back for this long. The time runs only from the first flow that
/// asks: until then the node stays cold.
const RAMP_QUIET: Duration = Duration::from_secs(10);
/// A slow start ends after this time even if its rate is below the node's share.
const RAMP_LONGEST: Duration = Duration::from_secs(600);

impl FlowLimiter {
    /// Creates a limiter with all its limits unused.
    pub fn new(limits: Limits, now: Instant) -> Self {
        FlowLimiter {
            limits,
            share: SiteShare::ALONE,
            admit: limits.admit_rate.map(|rate| bucket(rate, 1, now)),
            ramp: None,
        }
    }

    /// Uses only `share` of the limits from now on. A running slow start goes on.
    pub fn share(&mut self, share: SiteShare, now: Instant) {
        let edges = share.edges;
        let is_other = std::mem::replace(&mut self.share, share).edges != edges;
        if !is_other {
            return;
        }
        if let (Some(admit), Some(rate)) = (&mut self.admit, self.limits.admit_rate) {
            admit.change(bucket(rate, edges, now), now);
        }
        if let (Some(ramp), Some(rate)) = (&mut self.ramp, self.limits.slow_start) {
            ramp.bucket.change(bucket(rate, edges, now), now);
        }
    }

    /// Uses an even part of the limits, because nothing but the number of edges is known.
    pub fn share_evenly(&mut self, edges: usize, now: Instant) {
        let part = |limit: Option<usize>| limit.filter(|_| edges > 1).map(|l| even(l, edges));
        let share = SiteShare {
            edges,
            most: part(self.limits.max_flows),
            most_hard: part(self.limits.max_flows_hard),
        };
        self.share(share, now);
    }

    /// Returns the most flows here that are not stuck to the node.
    pub fn most(&self) -> Option<usize> {
        self.share.most.or(self.limits.max_flows)
    }

    /// Returns the most flows here of any kind.
    pub fn most_hard(&self) -> Option<usize> {
        self.share.most_hard.or(self.limits.max_flows_hard)
    }

    /// Returns the most new flows a second that this edge gives the node by `admit_rate`.
    pub fn admits(&self) -> Option<f64> {
        let rate = self.limits.admit_rate?;
        Some(rate.per_second() / self.share.edges.max(1) as f64)
    }

    /// Returns its limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Begins the slow start: the node takes flows from now on.
    pub fn returned(&mut self, now: Instant) {
        self.ramp = self.limits.slow_start.map(|rate| Ramp {
            bucket: bucket(rate, self.share.edges, now).begun(),
            began: now,
            held: None,
        });
    }

    /// Whether a slow start is running.
    pub fn is_ramping(&self) -> bool {
        self.ramp.is_some()
    }

    /// Returns the most new flows a second that the site gives the node: by `admit_rate`, and by a slow start while
    /// it lasts.
    pub fn intake(&self) -> Option<Rate> {
        let slow = self.limits.slow_start.filter(|_| self.is_ramping());
        self.limits.admit_rate.into_iter().chain(slow).min()
    }

    /// Ends the slow start: the node has as many flows as the others of its pool.
    pub fn caught_up(&mut self) {
        self.ramp = None;
    }

    /// Whether a flow may come to the node, which has `live` flows at this edge.
    pub fn room(&mut self, live: usize, now: Instant) -> Room {
        let mut most = self.most().into_iter().chain(self.most_hard());
        if most.any(|max| live >= max) {
            return Room::Full;
        }
        let mut wait = self.admit.as_mut().map_or(Duration::ZERO, |b| b.wait(now));
        if let Some(ramp) = &mut self.ramp {
            let held = *ramp.held.get_or_insert(now);
            let quiet = now.saturating_duration_since(held) >= RAMP_QUIET;
            if quiet || now.saturating_duration_since(ramp.began) >= RAMP_LONGEST {
                self.ramp = None;
            } else {
                let ramped = ramp.bucket.wait(now);
                if !ramped.is_zero() {
                    ramp.held = Some(now);
                }
                wait = wait.max(ramped);
            }
        }
        if wait.is_zero() {
            Room::Open
        } else {
            Room::In(wait)
        }
    }

    /// Admits a flow if there is room; returns whether it did.
    pub fn admit(&mut self, live: usize, now: Instant) -> bool {
        if self.room(live, now) != Room::Open {
            return false;
        }
        let buckets = self.admit.iter_mut();
        for bucket in buckets.chain(self.ramp.iter_mut().map(|r| &mut r.bucket)) {
            bucket.take(now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().expect("a rate")
    }

    fn limits(max_flows: usize, admit: &str, slow: &str) -> Limits {
        Limits {
            max_flows: (max_flows > 0).then_some(max_flows),
            max_flows_hard: None,
            admit_rate: (!admit.is_empty()).then(|| rate(admit)),
            slow_start: (!slow.is_empty()).then(|| rate(slow)),
        }
    }

    /// Counts the flows admitted in each second, with one request every `step`.
    fn admitted(
        limiter: &mut FlowLimiter,
        from: Instant,
        seconds: u64,
        step: Duration,
    ) -> Vec<u32> {
        let (mut counts, mut now) = (vec![0; seconds as usize], from);
        while now < from + Duration::from_secs(seconds) {
            if limiter.admit(0, now) {
                counts[(now - from).as_secs() as usize] += 1;
            }
            now += step;
        }
        counts
    }

    /// Issue 6: new flows stay under the rate within any second, even if some come up to 20 ms late. Fails if
    /// stored tokens or lateness come on top of the rate.
    #[test]
    fn no_second_of_a_storm_is_above_the_rate() {
        let start = Instant::now();
        for (text, most) in [("1/s", 1), ("40/s", 40), ("200/s", 200), ("5000/s", 5000)] {
            let mut limiter = FlowLimiter::new(limits(0, text, ""), start);
            let asked = (0..70_000).map(|n| start + Duration::from_micros(100) * n);
            let admitted = asked.filter(|now| limiter.admit(0, *now));
            // In every third interval of 20 ms, all flows arrive at its end.
            let late = |at: Instant| match (at - start).as_millis() as u32 / 20 {
                n if n % 3 == 0 => start + LATE * (n + 1),
                _ => at,
            };
            let times: Vec<Instant> = admitted.map(late).collect();
            let second = Duration::from_secs(1);
            let from = |at: &Instant| times.partition_point(|t| t < at);
            let busiest = times.iter().map(|t| from(&(*t + second)) - from(t)).max();
            assert!(busiest <= Some(most), "{text}: {busiest:?}");
            assert!(
                times.len() >= most * 7 * 95 / 100,
                "{text}: {}",
                times.len()
            );
        }
    }

    /// A hard limit below `max_flows` of its pool (a node's own) also bounds what the balancer gives.
    #[test]
    fn a_hard_limit_holds_for_balanced_flows_too() {
        let now = Instant::now();
        let limits = Limits {
            max_flows_hard: Some(1),
            ..limits(2, "", "")
        };
        let mut limiter = FlowLimiter::new(limits, now);
        assert_eq!(limiter.room(0, now), Room::Open);
        assert_eq!(limiter.room(1, now), Room::Full);
    }

    #[test]
    fn a_full_node_takes_none_whatever_its_rate() {
        let now = Instant::now();
        let mut limiter = FlowLimiter::new(limits(2, "100/s", ""), now);
        assert_eq!(limiter.room(1, now), Room::Open);
        assert_eq!(limiter.room(2, now), Room::Full);
        assert!(!limiter.admit(2, now));
    }

    /// D65. Fails if after a return flows come faster than the slow start, or before it slower than asked.
    #[test]
    fn a_node_that_returns_is_given_flows_slowly() {
        let start = Instant::now();
        let mut limiter = FlowLimiter::new(limits(0, "", "20/s"), start);
        let free = admitted(&mut limiter, start, 1, Duration::from_millis(1));
        assert_eq!(free, [1000]);
        let back = start + Duration::from_secs(1);
        limiter.returned(back);
        let counts = admitted(&mut limiter, back, 30, Duration::from_millis(1));
        assert!(counts.iter().all(|n| (19..=21).contains(n)), "{counts:?}");
        limiter.caught_up();
        let later = back + Duration::from_secs(30);
        assert_eq!(
            admitted(&mut limiter, later, 1, Duration::from_millis(1)),
            [1000]
        );
    }

    /// A slow start ends by itself if it holds no flow back, or if its rate is below the node's share.
    #[test]
    fn a_slow_start_ends() {
        let start = Instant::now();
        let mut limiter = FlowLimiter::new(limits(0, "", "20/s"), start);
        limiter.returned(start);
        admitted(&mut limiter, start, 15, Duration::from_millis(500));
        assert!(!limiter.is_ramping(), "two flows a second are no stampede");
        limiter.returned(start);
        let late = start + RAMP_QUIET * 6;
        let after_silence = admitted(&mut limiter, late, 1, Duration::from_millis(1));
        assert!(
            after_silence[0] <= 21,
            "nobody had asked: {after_silence:?}"
        );
        limiter.returned(start);
        admitted(&mut limiter, start, 601, Duration::from_millis(10));
        assert!(!limiter.is_ramping(), "after ten minutes");
    }

    /// Issue 16 §4: three edges together give a node its rate, also when an edge joins or leaves. Fails if a change of
    /// their number hands out a fresh bucket, or if the limit stands above the share.
    #[test]
    fn edges_share_a_rate() {
        let start = Instant::now();
        let mut limiter = FlowLimiter::new(limits(60, "30/s", ""), start);
        limiter.share_evenly(3, start);
        assert_eq!((limiter.most(), limiter.admits()), (Some(20), Some(10.0)));
        assert_eq!(limiter.room(20, start), Room::Full);
        let counts = admitted(&mut limiter, start, 4, Duration::from_millis(1));
        assert!(counts.iter().all(|n| (9..=10).contains(n)), "{counts:?}");
        let mut now = start + Duration::from_secs(4);
        let mut flows = 0;
        for n in 0..1000_u32 {
            let share = SiteShare {
                edges: 2 + n as usize % 2,
                ..SiteShare::ALONE
            };
            limiter.share(share, now);
            flows += u32::from(limiter.admit(0, now));
            now += Duration::from_millis(1);
        }
        assert!((10..=15).contains(&flows), "{flows}");
        limiter.share(SiteShare::ALONE, now);
        assert_eq!(limiter.most(), Some(60));
    }

    #[test]
    fn a_clock_read_late_adds_no_tokens() {
        let start = Instant::now() + Duration::from_secs(1);
        let mut bucket = TokenBucket::new(rate("1/s"), LATE, start);
        assert!(bucket.take(start));
        assert!(!bucket.take(start - Duration::from_secs(1)));
        assert!(!bucket.take(start + Duration::from_millis(999)));
        assert!(bucket.take(start + Duration::from_millis(1000)));
    }
}
