//! The date for everything remembered or signed: the wall clock without its jumps.
//!
//! In: the machine's two clocks. Out: one date for the whole process. It never goes back, and
//! catches up with the wall clock. If it followed a jump of an hour, every token of that hour
//! would be from the future, or would expire at once. A new assignment could also look older
//! than the rebalance before it. Source: FAULTS D48.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use pushgate_plugins::api::SKEW;

/// The clock of this process.
static CLOCK: Mutex<Clock> = Mutex::new(Clock {
    last: None,
    is_off: false,
});

/// Returns the date now, never earlier than a date it returned before in this process.
pub fn date() -> SystemTime {
    let (now, wall) = (Instant::now(), wall());
    let mut clock = CLOCK.lock();
    let date = clock.at(now, wall);
    let turned = clock.has_turned(date, wall);
    drop(clock);
    if turned {
        tell(date, wall);
    }
    date
}

/// Continues from the predecessor's date, which may still be catching up with the wall clock.
pub fn go_on_from(date: SystemTime) {
    CLOCK.lock().last = Some((Instant::now(), date));
}

/// Returns the machine's wall clock, which may jump. It is for logs, and for certificates, dated by others.
#[expect(
    clippy::disallowed_methods,
    reason = "callers of `wall` want the raw clock"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// While the date catches up, it runs at twice the speed of time or at half.
const PACE: u32 = 2;
/// If wall clock and date differ by more, the clock was set, and a log line says so.
const OFF: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Clock {
    last: Option<(Instant, SystemTime)>,
    /// Whether the log said that the date differs from the wall clock.
    is_off: bool,
}

impl Clock {
    /// Returns the date when the machine's clocks read `now` and `wall`.
    fn at(&mut self, now: Instant, wall: SystemTime) -> SystemTime {
        let (at, last) = self.last.unwrap_or((now, wall));
        // Another thread may have called this first with a later reading.
        let passed = now.saturating_duration_since(at);
        let (least, most) = (last + passed / PACE, last + passed * PACE);
        // The date is so far behind that it would refuse the tokens of other edges: it jumps. The machine
        // slept, or started with a wrong clock.
        let most = if wall > most + SKEW { wall } else { most };
        let date = wall.clamp(least, most);
        self.last = Some((at.max(now), date));
        date
    }

    /// Whether the date has just begun or ceased to differ from the wall clock.
    fn has_turned(&mut self, date: SystemTime, wall: SystemTime) -> bool {
        let limit = if self.is_off { OFF / 2 } else { OFF };
        let turned = (distance(date, wall) > limit) != self.is_off;
        self.is_off ^= turned;
        turned
    }
}

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|e| e.duration())
}

fn tell(date: SystemTime, wall: SystemTime) {
    let seconds = distance(date, wall).as_secs_f64().round();
    match date.cmp(&wall) {
        _ if seconds < OFF.as_secs_f64() => {
            log::info!("assignment timestamps agree with the wall clock again")
        }
        std::cmp::Ordering::Less => log::warn!(
            "wall clock jumped forward {seconds} s; assignment timestamps catch up at 2x"
        ),
        _ => log::warn!(
            "wall clock jumped back {seconds} s; assignment timestamps run at half speed until it catches up"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// A machine whose wall clock can be set.
    struct Machine {
        clock: Clock,
        now: Instant,
        wall: SystemTime,
    }

    impl Machine {
        fn new() -> Self {
            Machine {
                clock: Clock::default(),
                now: Instant::now(),
                wall: SystemTime::UNIX_EPOCH + 500_000 * HOUR,
            }
        }

        /// Returns the date after `time`, in which the date is read each second.
        fn after(&mut self, time: Duration) -> SystemTime {
            let mut last = self.clock.at(self.now, self.wall);
            for _ in 0..time.as_secs() {
                (self.now, self.wall) = (self.now + SECOND, self.wall + SECOND);
                let date = self.clock.at(self.now, self.wall);
                assert!(date >= last, "a date never goes back");
                last = date;
            }
            last
        }

        /// Returns by how many seconds the date is behind the wall clock; negative if it is ahead.
        fn behind(&mut self) -> f64 {
            let date = self.after(Duration::ZERO);
            let ahead = || {
                -date
                    .duration_since(self.wall)
                    .expect("a date")
                    .as_secs_f64()
            };
            let behind = self.wall.duration_since(date);
            behind.map_or_else(|_| ahead(), |d| d.as_secs_f64())
        }
    }

    /// Aim: D48, both directions: the date skips and repeats no second by much, and reaches the wall clock
    /// after a while. Fails if the date follows a jump, or never catches up.
    #[test]
    fn a_step_of_an_hour_is_taken_slowly() {
        for (back, twice) in [(true, 2), (false, 1)] {
            let mut machine = Machine::new();
            let before = machine.after(10 * SECOND);
            assert_eq!(before, machine.wall);
            machine.wall = match back {
                true => machine.wall - HOUR,
                false => machine.wall + HOUR,
            };
            assert_eq!(machine.after(Duration::ZERO), before, "back: {back}");
            let later = machine.after(10 * SECOND);
            let passed = later.duration_since(before).expect("not back");
            let wanted = if back { 5 * SECOND } else { 20 * SECOND };
            assert_eq!(passed, wanted, "back: {back}");
            machine.after(twice * HOUR - 30 * SECOND);
            assert_ne!(machine.behind(), 0.0);
            machine.after(60 * SECOND);
            assert_eq!(machine.behind(), 0.0, "back: {back}");
        }
    }

    #[test]
    fn a_clock_set_and_set_back_leaves_no_trace() {
        let mut machine = Machine::new();
        machine.after(10 * SECOND);
        machine.wall += HOUR;
        machine.after(60 * SECOND);
        machine.wall -= HOUR;
        assert_eq!(machine.behind(), -60.0);
        machine.after(121 * SECOND);
        assert_eq!(machine.behind(), 0.0);
    }

    /// The machine slept, or started in 1970 and is then given the time.
    #[test]
    fn the_date_jumps_beyond_the_skew_but_never_back() {
        let mut machine = Machine::new();
        machine.after(SECOND);
        machine.wall += 10 * HOUR;
        assert_eq!(machine.behind(), 0.0);
        machine.wall -= 10_000 * HOUR;
        machine.after(100 * SECOND);
        let ahead = 10_000.0 * HOUR.as_secs_f64() - 50.0;
        assert!((machine.behind() + ahead).abs() < 1.0);
    }

    /// A disciplined clock runs a little fast or slow: the log says nothing.
    #[test]
    fn a_step_and_its_end_are_logged_once() {
        let mut machine = Machine::new();
        let mut said = Vec::new();
        for second in 0..30 {
            match second {
                3 => machine.wall -= SECOND,
                10 => machine.wall -= 8 * SECOND,
                _ => {}
            }
            let date = machine.after(SECOND);
            if machine.clock.has_turned(date, machine.wall) {
                said.push(second);
            }
        }
        assert_eq!(said, [10, 23]);
    }

    /// Another thread with a later reading overtook this one.
    #[test]
    fn an_older_reading_changes_nothing() {
        let mut machine = Machine::new();
        let old = (machine.now, machine.wall);
        let date = machine.after(10 * SECOND);
        assert_eq!(machine.clock.at(old.0, old.1), date);
        assert_eq!(machine.after(Duration::ZERO), date);
    }
}
