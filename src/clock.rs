//! The date of what is remembered and signed: the wall clock without its steps.
//!
//! In: the machine's two clocks. Out: one date for the whole process, which never goes back and comes to
//! where the wall clock is. A step of an hour would otherwise make every token of that hour one of the
//! future, or end them all at once, and what is learned after a rebalance older than the rebalance.
//! Source: FAULTS D48.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use pushgate_plugins::api::SKEW;

/// The process's own.
static CLOCK: Mutex<Clock> = Mutex::new(Clock {
    last: None,
    is_off: false,
});

/// The date now. Never before what it said earlier in this process.
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

/// Goes on from the date of the process before this one, which may be on its way to the wall clock.
pub fn go_on_from(date: SystemTime) {
    CLOCK.lock().last = Some((Instant::now(), date));
}

/// What the machine's clock says, for logs, and for certificates, whose dates others gave them. It may step.
#[expect(
    clippy::disallowed_methods,
    reason = "who asks for it by this name knows"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The steps of the wall clock are taken at half speed or double.
const PACE: u32 = 2;
/// A wall clock so far from the date has been set: it is said.
const OFF: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Clock {
    last: Option<(Instant, SystemTime)>,
    /// Whether it was said that the wall clock is elsewhere.
    is_off: bool,
}

impl Clock {
    /// The date where the machine's clocks are at `now` and `wall`.
    fn at(&mut self, now: Instant, wall: SystemTime) -> SystemTime {
        let (at, last) = self.last.unwrap_or((now, wall));
        // Another thread may have read the clocks later and been here before.
        let passed = now.saturating_duration_since(at);
        let (least, most) = (last + passed / PACE, last + passed * PACE);
        // So far behind that the tokens of others would be refused: the machine slept, or began with a
        // wrong clock.
        let most = if wall > most + SKEW { wall } else { most };
        let date = wall.clamp(least, most);
        self.last = Some((at.max(now), date));
        date
    }

    /// Whether the wall clock has left the date, or is back.
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
        _ if seconds < OFF.as_secs_f64() => log::info!("the dates of assignments keep time again"),
        std::cmp::Ordering::Less => log::warn!(
            "the clock was set {seconds} s forward: the dates of assignments follow at double speed"
        ),
        _ => log::warn!(
            "the clock was set {seconds} s back: the dates of assignments go on, at half speed, until it \
             has caught up"
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

        /// The date after a time in which it was asked for each second.
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

        /// How far the date is before the wall clock, in seconds.
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

    /// Aim: D48, both ways: no second is left out or repeated by much, and after a while the date is that of
    /// the wall clock. Fails if the date follows a step, or never comes to where the clock is.
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
    fn a_clock_set_and_set_back_is_as_if_nothing_was() {
        let mut machine = Machine::new();
        machine.after(10 * SECOND);
        machine.wall += HOUR;
        machine.after(60 * SECOND);
        machine.wall -= HOUR;
        assert_eq!(machine.behind(), -60.0);
        machine.after(121 * SECOND);
        assert_eq!(machine.behind(), 0.0);
    }

    /// A machine that slept, or that began in 1970 and is told the time.
    #[test]
    fn what_is_more_than_the_skew_is_followed_at_once_but_never_back() {
        let mut machine = Machine::new();
        machine.after(SECOND);
        machine.wall += 10 * HOUR;
        assert_eq!(machine.behind(), 0.0);
        machine.wall -= 10_000 * HOUR;
        machine.after(100 * SECOND);
        let ahead = 10_000.0 * HOUR.as_secs_f64() - 50.0;
        assert!((machine.behind() + ahead).abs() < 1.0);
    }

    /// Clocks that are disciplined go a little faster or slower: nobody is told.
    #[test]
    fn a_step_is_said_once_and_its_end_too() {
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

    /// A thread that read the clocks and was overtaken.
    #[test]
    fn an_older_reading_changes_nothing() {
        let mut machine = Machine::new();
        let old = (machine.now, machine.wall);
        let date = machine.after(10 * SECOND);
        assert_eq!(machine.clock.at(old.0, old.1), date);
        assert_eq!(machine.after(Duration::ZERO), date);
    }
}
