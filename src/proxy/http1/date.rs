//! Makes the `Date` field for an answer that has none.
//!
//! In: the wall clock. Out: the date as HTTP writes it. Each thread formats it once a second.
//! Source: RFC 9110 §5.6.7, §6.6.1.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use crate::clock;

/// A date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type HttpDate = [u8; 29];

thread_local! {
    /// The second that was formatted last, and its text.
    static LAST: Cell<(u64, HttpDate)> = const { Cell::new((u64::MAX, [0; 29])) };
}

/// The last second of the year 9999, because the format has four digits for a year.
const LAST_SECOND: u64 = 253_402_300_799;

/// Returns the date by the wall clock. A clock before 1970 or after 9999 gives the nearest legal date.
pub fn now() -> HttpDate {
    let passed = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
    at(passed.unwrap_or_default().as_secs())
}

fn at(second: u64) -> HttpDate {
    let (last, date) = LAST.get();
    if last == second {
        return date;
    }
    let legal = Duration::from_secs(second.min(LAST_SECOND));
    let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + legal);
    let date = text.as_bytes().try_into().unwrap_or(date);
    LAST.set((second, date));
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: each second has its own text. Fails if a second gets the text of another, or if a wrong clock
    /// panics.
    #[test]
    fn each_second_has_its_text() {
        for (second, text) in [
            (u64::MAX - 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
        ] {
            assert_eq!(at(second), text.as_bytes(), "{second}");
        }
    }
}
