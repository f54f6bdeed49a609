//! Limits the pace of log lines, so that nobody can fill a disk, or hide a line that matters, by what he sends.
//!
//! In: a line's place in the code, its origin, and the time. Out: whether it is written; each 10 s a count of
//! those that were not. A line that a client or a node can cause may come a few times a second. Modules that
//! log what an operator does, or one line for each of his nodes, have room for long lists. Every other module
//! has little, so that a new line has a limit although nobody thought of it. Source: FAULTS D54.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use log::Level;

/// Period of the counts of lines that were left out.
pub const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Most places that have a count of their own; the code has some hundred.
const MAX_PLACES: usize = 1024;

/// Lines at once and lines a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    burst: f64,
    a_second: f64,
}

/// For what others cause: ten lines show what is wrong, and the metrics have the numbers.
const OTHERS: Limit = Limit {
    burst: 10.0,
    a_second: 3.0,
};
/// For what an operator or a time causes: a reload may have a line for each of thousands of certificates.
const OURS: Limit = Limit {
    burst: 10_000.0,
    a_second: 100.0,
};
/// Modules whose lines have [`OURS`].
const OUR_MODULES: [&str; 9] = [
    "pushgate::cli",
    "pushgate::server",
    "pushgate::control",
    "pushgate::demo",
    "pushgate::upstream::node",
    "pushgate::upstream::discover",
    "pushgate::tls::store",
    "pushgate::credentials",
    "pushgate_plugins",
];
/// Modules within those that log what others cause.
const NOT_OURS: [&str; 2] = ["pushgate::control::admin", "pushgate::server::upgrade"];

fn limit_of(module: &str) -> Limit {
    let is_in = |name: &&str| {
        let rest = module.strip_prefix(*name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    match OUR_MODULES.iter().any(&is_in) && !NOT_OURS.iter().any(&is_in) {
        true => OURS,
        false => OTHERS,
    }
}

/// Where a line comes from: a module and the number of its line.
type Place = (String, Option<u32>);

/// Lines of one place that were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Level of the first of them.
    pub level: Level,
    /// Module that logged them.
    pub module: String,
    /// Text of the first of them.
    pub example: String,
    /// How many.
    pub count: u64,
}

struct State {
    tokens: f64,
    at: Instant,
    left_out: Option<LeftOut>,
}

/// The state of every place that has logged a line.
#[derive(Default)]
pub struct Pace(HashMap<Place, State>);

impl Pace {
    /// Whether a line may be written at `now`. `text` makes its text, which is kept of the first line that is
    /// left out.
    pub fn allows(
        &mut self,
        (module, line): (&str, Option<u32>),
        level: Level,
        now: Instant,
        text: impl FnOnce() -> String,
    ) -> bool {
        let place = match self.0.len() {
            MAX_PLACES.. => (String::new(), None),
            _ => (module.to_owned(), line),
        };
        let limit = limit_of(module);
        let state = self.0.entry(place).or_insert(State {
            tokens: limit.burst,
            at: now,
            left_out: None,
        });
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = now;
        state.tokens = (state.tokens + passed * limit.a_second).min(limit.burst);
        if state.tokens >= 1.0 {
            state.tokens -= 1.0;
            return true;
        }
        let left_out = state.left_out.get_or_insert_with(|| LeftOut {
            level,
            module: module.to_owned(),
            example: text(),
            count: 0,
        });
        left_out.count += 1;
        false
    }

    /// Returns what was left out since the last call.
    pub fn report(&mut self) -> Vec<LeftOut> {
        let all = self.0.values_mut();
        let mut all: Vec<_> = all.filter_map(|state| state.left_out.take()).collect();
        all.sort_by_key(|left_out| std::cmp::Reverse(left_out.count));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: (&str, Option<u32>) = ("pushgate::listener::accept", Some(7));

    fn allowed(pace: &mut Pace, place: (&str, Option<u32>), now: Instant, lines: u64) -> u64 {
        let all = (0..lines).map(|n| {
            let text = || format!("line {n}");
            pace.allows(place, Level::Warn, now, text)
        });
        all.map(u64::from).sum()
    }

    /// Aim: at a million lines in 100 s, some ten at once and three a second are written, the others are
    /// counted with an example, once. Fails without the limit, or if a count is reported twice.
    #[test]
    fn a_flood_of_lines_becomes_a_count() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let each = |tenth: u32| begin + tenth * Duration::from_millis(100);
        let written = (0..1000).map(|at| allowed(&mut pace, CLIENTS, each(at), 1000));
        let written: u64 = written.sum();
        assert!((300..=310).contains(&written), "{written}");
        let expected = LeftOut {
            level: Level::Warn,
            module: CLIENTS.0.into(),
            example: "line 10".into(),
            count: 1_000_000 - written,
        };
        assert_eq!(pace.report(), [expected]);
        assert_eq!(pace.report(), []);
    }

    /// Aim: a flood of one kind hides no other line. Fails if places share a limit.
    #[test]
    fn other_places_are_heard() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        allowed(&mut pace, CLIENTS, now, 1000);
        assert_eq!(allowed(&mut pace, (CLIENTS.0, Some(8)), now, 1), 1);
        assert_eq!(allowed(&mut pace, ("h2::proto", Some(7)), now, 1000), 10);
    }

    /// Aim: a reload may warn of each of 5,000 certificates. Fails if operators' modules have the limit of
    /// clients, or a module of that name beside them has theirs.
    #[test]
    fn lists_of_an_operator_are_whole() {
        for (module, expected) in [
            ("pushgate::tls::store", OURS),
            ("pushgate::control", OURS),
            ("pushgate::control::running", OURS),
            ("pushgate::control::admin", OTHERS),
            ("pushgate::controlled", OTHERS),
            ("pushgate::proxy::http1", OTHERS),
            ("pingora_core::server", OTHERS),
        ] {
            assert_eq!(limit_of(module), expected, "{module}");
        }
    }

    /// Aim: the memory of the limits is bounded. Fails without [`MAX_PLACES`].
    #[test]
    fn places_are_bounded() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for line in 0..2 * MAX_PLACES as u32 {
            allowed(&mut pace, ("library", Some(line)), now, 1);
        }
        assert_eq!(pace.0.len(), MAX_PLACES + 1);
    }
}
