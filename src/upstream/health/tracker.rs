//! Reaches the verdict on a node from its checks and its traffic, and decides how long a flapping node is
//! held Down.
//!
//! In: outcomes of checks, counts of failed and answered flows, the time. Out: healthy or not. Pure.
//! Source: FAULTS D61 (a node that flaps, or fails only real traffic); issue 6, "flap damping".

use std::time::{Duration, Instant};

use crate::config::Health;

/// The thresholds that turn a verdict.
#[derive(Clone, Copy, Debug)]
struct Rules {
    rise: u32,
    fall: u32,
    interval: Duration,
    hold_down: Duration,
    failures: Option<u32>,
    errors: Option<f64>,
}

/// Passive health counters of a node, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Flows that failed in a row, with no answered flow between.
    pub failed_in_row: u32,
    /// Answers.
    pub answers: u64,
    /// Answers with a status of 500 or more.
    pub errors: u64,
}

/// The verdict so far.
#[derive(Clone, Debug)]
pub struct HealthTracker {
    rules: Rules,
    healthy: bool,
    /// Checks in a row that contradict the verdict.
    against: u32,
    /// Falls in a row, each soon after the return before it.
    falls: u32,
    up_since: Option<Instant>,
    held_until: Option<Instant>,
    /// When the counted answers began, and the counters then; `None`: counting begins with the next call.
    window: Option<(Instant, Traffic)>,
}

/// Fewest answers from which a share of errors counts.
const LEAST_ANSWERS: u64 = 20;
/// Longest time over which answers are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// First hold, in intervals, of a node that fails traffic while its checks pass: the checks would call it Up
/// at once.
const TRAFFIC_HOLD: u32 = 10;

impl HealthTracker {
    /// Begins with the verdict of the first check, and the counters of the flows so far.
    pub fn new(conf: &Health, healthy: bool, traffic: Traffic, now: Instant) -> Self {
        let passive = conf.passive.as_ref();
        HealthTracker {
            rules: Rules {
                rise: conf.rise,
                fall: conf.fall,
                interval: conf.interval.0,
                hold_down: conf.hold_down.0,
                failures: passive.map(|p| p.failures),
                errors: passive.and_then(|p| p.errors).map(|share| share.0),
            },
            healthy,
            against: 0,
            falls: 0,
            up_since: None,
            held_until: None,
            window: Some((now, traffic)),
        }
    }

    /// Returns the current verdict.
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Whether checks contradict the verdict, so that it may be about to turn.
    pub fn is_changing(&self) -> bool {
        self.against > 0
    }

    /// Returns how long the node is still held Down whatever its checks say.
    pub fn held(&self, now: Instant) -> Duration {
        let left = self.held_until.map(|u| u.saturating_duration_since(now));
        left.unwrap_or_default()
    }

    /// Returns the number of falls in a row.
    pub fn falls(&self) -> u32 {
        self.falls
    }

    /// Counts one check; returns whether the verdict turned: after `rise` passed or `fall` failed checks in a
    /// row.
    pub fn checked(&mut self, good: bool, now: Instant) -> bool {
        if good == self.healthy {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        match self.healthy {
            true if self.against >= self.rules.fall => {
                // The first fall has no hold: `rise` alone brings the node back.
                let hold = self.rules.interval * u32::from(self.fell_again(now));
                self.fall(hold, now);
                true
            }
            false if self.against >= self.rules.rise && self.held(now).is_zero() => {
                self.healthy = true;
                self.against = 0;
                self.window = None;
                self.up_since = Some(now);
                true
            }
            _ => false,
        }
    }

    /// Judges the traffic so far; returns the cause if the node falls for it.
    pub fn observe(&mut self, traffic: Traffic, now: Instant) -> Option<String> {
        let (began, before) = *self.window.get_or_insert((now, traffic));
        let answers = traffic.answers - before.answers;
        let errors = traffic.errors - before.errors;
        if answers >= LEAST_ANSWERS || now.saturating_duration_since(began) >= WINDOW {
            self.window = Some((now, traffic));
        }
        if !self.healthy {
            return None;
        }
        let failed = traffic.failed_in_row;
        let cause = if self.rules.failures.is_some_and(|most| failed >= most) {
            format!("{failed} flows in a row failed")
        } else if answers >= LEAST_ANSWERS
            && self
                .rules
                .errors
                .is_some_and(|share| errors as f64 > share * answers as f64)
        {
            format!("{errors} of {answers} answers were errors")
        } else {
            return None;
        };
        self.fall(self.rules.interval * TRAFFIC_HOLD, now);
        Some(cause)
    }

    /// Forgets earlier falls, because an operator pardoned the node.
    pub fn forgive(&mut self) {
        self.falls = 0;
        self.up_since = None;
        self.held_until = None;
        self.window = None;
    }

    /// Whether a fall now comes sooner after the node's return than the longest hold.
    fn fell_again(&self, now: Instant) -> bool {
        let up = self
            .up_since
            .map(|since| now.saturating_duration_since(since));
        up.is_some_and(|up| up < self.rules.hold_down)
    }

    /// Turns the verdict to Down, and holds it for `hold`, doubled with each fall in a row.
    fn fall(&mut self, hold: Duration, now: Instant) {
        self.falls = if self.fell_again(now) {
            self.falls + 1
        } else {
            1
        };
        // 2^16 intervals are longer than any configured hold.
        let doubled = hold.saturating_mul(1 << (self.falls - 1).min(16));
        self.healthy = false;
        self.against = 0;
        self.window = None;
        self.held_until = Some(now + doubled.min(self.rules.hold_down));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(keys: &str) -> (HealthTracker, Instant) {
        let text = format!("{{ tcp: {{}}, interval: 1s, rise: 2, fall: 3{keys} }}");
        let conf: Health = serde_yaml::from_str(&text).expect("a check");
        let now = Instant::now();
        (
            HealthTracker::new(&conf, true, Traffic::default(), now),
            now,
        )
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn rise_and_fall() {
        let cases: &[(&str, &str, bool)] = &[
            // Checks (g passed, b failed), from healthy, with rise 2 and fall 3.
            ("bb", "two bad are not enough", true),
            ("bbb", "three bad", false),
            ("bbgbb", "a good one between starts anew", true),
            ("bbbg", "one good is not enough", false),
            ("bbbgg", "two good", true),
            ("bbbgbg", "a bad one between starts anew", false),
        ];
        for (checks, name, healthy) in cases {
            let (mut tracker, now) = tracker("");
            for c in checks.chars() {
                tracker.checked(c == 'g', now);
            }
            assert_eq!(tracker.is_healthy(), *healthy, "{name}");
        }
    }

    /// Counts the turns within `seconds` of a node whose checks turn every `period` checks, one a second.
    fn turns(keys: &str, seconds: u64, period: u64) -> usize {
        let (mut tracker, start) = tracker(keys);
        let turned =
            |n: &u64| tracker.checked((n / period).is_multiple_of(2), start + SECOND * *n as u32);
        (0..seconds).filter(turned).count()
    }

    /// D61: a flapping node is Up more and more rarely. Fails if each return is as quick as the first.
    #[test]
    fn a_flapping_node_is_held_down_longer_and_longer() {
        let damped = turns("", 600, 4);
        assert!((8..=30).contains(&damped), "{damped} turns in 600 s");
        let free = turns(", hold_down: 0s", 600, 4);
        assert!(free > 140, "{free} turns without damping");
    }

    /// A node that was healthy for as long as the longest hold begins anew.
    #[test]
    fn old_falls_are_forgotten() {
        let (mut tracker, mut now) = tracker("");
        (tracker.rules.rise, tracker.rules.fall) = (1, 1);
        let mut holds = Vec::new();
        for pause in [1, 1, 1, 61, 1] {
            assert!(tracker.checked(false, now));
            holds.push(tracker.held(now).as_secs());
            now += tracker.held(now);
            assert!(tracker.checked(true, now));
            now += SECOND * pause;
        }
        assert_eq!(holds, [0, 2, 4, 8, 0]);
        assert!(tracker.checked(false, now));
        assert_eq!(tracker.held(now).as_secs(), 2);
        tracker.forgive();
        assert!(tracker.checked(true, now) && tracker.checked(false, now));
        assert_eq!(tracker.held(now).as_secs(), 1, "the row begins anew");
    }

    fn failed(n: u32) -> Traffic {
        Traffic {
            failed_in_row: n,
            ..Traffic::default()
        }
    }

    /// D61. Fails if a node whose flows fail stays Up, or is Up again at the next passed check.
    #[test]
    fn failing_flows_take_a_node_down_for_a_while() {
        let (mut tracker, now) = tracker(", passive: { failures: 3 }");
        assert_eq!(tracker.observe(failed(2), now), None);
        assert!(tracker.observe(failed(3), now).is_some());
        for second in 1..10 {
            assert!(!tracker.checked(true, now + SECOND * second), "{second}");
        }
        assert!(tracker.checked(true, now + SECOND * 10));
        let again = now + SECOND * 11;
        assert!(tracker.observe(failed(5), again).is_some());
        assert_eq!(tracker.held(again).as_secs(), 20);
    }

    #[test]
    fn failing_flows_count_only_where_asked_for() {
        let (mut tracker, now) = tracker("");
        assert_eq!(tracker.observe(failed(1_000), now), None);
    }

    #[test]
    fn a_share_of_errors_counts_once_there_are_enough_answers() {
        let at = |answers, errors| Traffic {
            failed_in_row: 0,
            answers,
            errors,
        };
        let (mut tracker, now) = tracker(", passive: { errors: 50% }");
        assert_eq!(tracker.observe(at(19, 19), now), None, "too few");
        assert_eq!(
            tracker.observe(at(40, 20), now),
            None,
            "half is not more than half"
        );
        assert_eq!(
            tracker.observe(at(59, 39), now + SECOND * 11),
            None,
            "19 in a window"
        );
        assert!(tracker.observe(at(79, 50), now + SECOND * 12).is_some());
    }

    /// Fails if errors count that came before a fall, or before an operator's pardon.
    #[test]
    fn errors_before_a_turn_do_not_count() {
        let errors = |n| Traffic {
            failed_in_row: 0,
            answers: n,
            errors: n,
        };
        for pardoned in [false, true] {
            let (mut tracker, now) = tracker(", passive: { errors: 50% }");
            assert_eq!(tracker.observe(errors(19), now), None);
            if pardoned {
                tracker.forgive();
            } else {
                let turns =
                    [false, false, false, true, true].map(|good| tracker.checked(good, now));
                assert_eq!(turns, [false, false, true, false, true]);
            }
            assert_eq!(
                tracker.observe(errors(20), now),
                None,
                "pardoned: {pardoned}"
            );
        }
    }
}
