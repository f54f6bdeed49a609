//! Decides when a certificate is ordered: the renewal of a good one, the next try after a failure.
//!
//! In: what the certificate says, failures so far, a random number. Out: dates in seconds since 1970, and pauses.

use std::time::Duration;

use crate::credentials::Issued;

/// Pause after the first failure. Three times as long after each further one: Let's Encrypt lets five orders for a
/// name fail in an hour, and these come after 0, 1, 4, 13 and 40 minutes.
const FIRST: Duration = Duration::from_secs(60);
/// Longest pause: an authority that is back is asked within a day, of the thirty that are left of ninety.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Longest pause while clients are refused.
const LONGEST_WITHOUT: Duration = Duration::from_secs(3600);
/// Pause that an authority bears for ever, a tenth off: Let's Encrypt gives back one failure in twelve minutes. No
/// haste makes it shorter.
pub(super) const SUSTAINED: Duration = Duration::from_secs(800);
/// A pause lasts at most this part of the certificate's remaining life, so that a short certificate does not end
/// during a pause.
const PART_OF_LEFT: u32 = 10;
const FACTOR: u32 = 3;
/// Part of a certificate's life by which renewals are spread, so that edges do not all come at one time.
const SPREAD: f64 = 1.0 / 30.0;

/// Returns when `issued` is renewed: at two thirds of its life, or up to a thirtieth of its life earlier. `part`: a
/// random number from 0 to 1.
pub fn renewal(issued: &Issued, part: f64) -> i64 {
    let life = issued.until.saturating_sub(issued.from).max(0) as f64;
    issued
        .from
        .saturating_add((life * (2.0 / 3.0 - SPREAD * part)) as i64)
}

/// Whether `issued` covers all `names` and comes from the authority with this URL. If not, it is ordered anew.
pub fn fits(issued: &Issued, names: &[String], authority: &str) -> bool {
    issued.authority == authority && names.iter().all(|name| issued.names.contains(name))
}

/// Returns the pause after `failures` in a row, at least one: from one minute to one day, and up to a tenth less.
/// `part`: a random number from 0 to 1. `left`: the remaining life of the certificate that serves; zero: clients are
/// refused.
pub fn pause(failures: u32, part: f64, left: Duration) -> Duration {
    let factor = FACTOR.saturating_pow(failures.saturating_sub(1));
    let longest = match left.is_zero() {
        true => LONGEST_WITHOUT,
        false => (left / PART_OF_LEFT).clamp(SUSTAINED, LONGEST),
    };
    FIRST
        .saturating_mul(factor)
        .min(longest)
        .mul_f64(1.0 - part / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(from: i64, until: i64) -> Issued {
        Issued {
            from,
            until,
            names: vec!["a.example".into(), "b.example".into()],
            authority: "https://ca/dir".into(),
        }
    }

    /// Aim: a renewal comes at two thirds of the life, never later. Fails if the random part only delays it.
    #[test]
    fn renewals_come_at_two_thirds() {
        const DAY: i64 = 86_400;
        for (from, until, part, expected) in [
            (0, 90 * DAY, 0.0, 60 * DAY),
            (0, 90 * DAY, 1.0, 57 * DAY),
            (1000, 1000 + 6 * DAY, 0.0, 1000 + 4 * DAY),
            // Dates of nonsense end in a renewal at once, not in a panic.
            (i64::MAX, i64::MIN, 0.5, i64::MAX),
            (i64::MIN, i64::MAX, 0.0, -3_074_457_345_618_258_944),
        ] {
            let got = renewal(&issued(from, until), part);
            assert!((got - expected).abs() < 2048, "{from} {until}: {got}");
        }
    }

    /// Aim: five failures fit into an hour, and the pause ends at a day, sooner if the certificate ends soon. Fails if
    /// it grows faster or without end, or if a certificate of a day ends in a pause of a day.
    #[test]
    fn pauses_grow_to_a_day() {
        const MONTH: u64 = 30 * 86_400;
        for (failures, part, left, expected) in [
            (0, 0.0, MONTH, 60),
            (1, 0.0, MONTH, 60),
            (1, 1.0, MONTH, 54),
            (2, 0.0, MONTH, 180),
            (4, 0.0, MONTH, 1620),
            (7, 0.0, MONTH, 43_740),
            (8, 0.0, MONTH, 86_400),
            (u32::MAX, 0.0, MONTH, 86_400),
            (8, 0.0, 8 * 3600, 2880),
            (8, 0.0, 60, 800),
            (8, 1.0, 60, 720),
            (8, 0.0, 0, 3600),
        ] {
            let got = pause(failures, part, Duration::from_secs(left));
            assert_eq!(got.as_secs(), expected, "{failures} {left}");
        }
    }

    /// Aim: another name or authority in the configuration means another certificate. Fails if it waits for the
    /// renewal.
    #[test]
    fn other_names_need_another_certificate() {
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let one = issued(0, 1);
        assert!(!fits(
            &one,
            &names(&["a.example", "c.example"]),
            "https://ca/dir"
        ));
        assert!(!fits(&one, &names(&["a.example"]), "https://other/dir"));
        assert!(fits(&one, &names(&["b.example"]), "https://ca/dir"));
    }
}
