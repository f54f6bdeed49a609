//! Reads the statuses that pass a health check: `200`, `200-399`, or a list of both.
//!
//! In: the value in the file. Out: [`Statuses`], or a fault at the value's place.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::defaults;

/// Statuses of a final answer.
const LEGAL: RangeInclusive<u16> = 200..=599;

/// Most entries of a list: each check compares with all of them.
const MAX_ENTRIES: usize = 64;

const WORDS: &str = "a status from 200 to 599, a range such as `200-399`, or a list of both";

/// Statuses that pass a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Returns its entries as the file writes them.
    pub(super) fn written(&self) -> impl Iterator<Item = String> {
        let one = |range: &RangeInclusive<u16>| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}-{}", range.start(), range.end()),
        };
        self.0.iter().map(one)
    }

    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Statuses(vec![defaults::STATUS..=defaults::STATUS])
    }
}

/// As in the file: `200, 204, 300-399`.
impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written().collect::<Vec<_>>().join(", "))
    }
}

/// Hand-written, because serde's `untagged` loses the line of a fault.
impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Statuses;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WORDS)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Statuses, E> {
                One.visit_u64(number)
                    .map(|Entry(range)| Statuses(vec![range]))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                One.visit_str(text)
                    .map(|Entry(range)| Statuses(vec![range]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Statuses, A::Error> {
                let mut all = Vec::new();
                while let Some(Entry(range)) = list.next_element()? {
                    if all.len() == MAX_ENTRIES {
                        let expected = format!("at most {MAX_ENTRIES} of them");
                        let found = Unexpected::Other("a longer list");
                        return Err(A::Error::invalid_value(found, &expected.as_str()));
                    }
                    all.push(range);
                }
                match all.is_empty() {
                    true => Err(A::Error::invalid_value(
                        Unexpected::Other("an empty list"),
                        &self,
                    )),
                    false => Ok(Statuses(all)),
                }
            }
        }
        d.deserialize_any(V)
    }
}

/// One entry of a list, or a value without one.
struct Entry(RangeInclusive<u16>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(One)
    }
}

struct One;

impl Visitor<'_> for One {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Entry, E> {
        let legal = u16::try_from(number).ok().filter(|n| LEGAL.contains(n));
        let legal = legal.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok(Entry(legal..=legal))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
        let number = |text: &str| {
            let is_status = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().ok().filter(|n| LEGAL.contains(n));
            number.filter(|_| is_status)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first.trim_end()), number(last.trim_start())) {
            (Some(first), Some(last)) if first <= last => Ok(Entry(first..=last)),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Statuses;

    /// Fails if a range leaves out its last status, or a form is refused.
    #[test]
    fn statuses_are_numbers_ranges_and_lists() {
        for (text, shown, good, bad) in [
            ("204", "204", &[204][..], &[200, 205][..]),
            ("'204'", "204", &[204], &[200]),
            ("200-399", "200-399", &[200, 301, 399], &[400]),
            ("200 - 299", "200-299", &[200, 299], &[300]),
            (
                "[200, 204, 300-399]",
                "200, 204, 300-399",
                &[200, 204, 302],
                &[201, 404],
            ),
            ("599-599", "599", &[599], &[598]),
        ] {
            let read: Statuses = serde_yaml::from_str(text).expect(text);
            assert_eq!(read.to_string(), shown);
            assert!(good.iter().all(|status| read.contains(*status)), "{text}");
            assert!(!bad.iter().any(|status| read.contains(*status)), "{text}");
        }
        let long = format!("[{}]", "200,".repeat(65));
        for text in [
            "199",
            "600",
            "2xx",
            "399-200",
            "200-",
            "-200",
            "200-600",
            "200-299-300",
            "[]",
            "[[200]]",
            "{}",
            "~",
            "true",
            "200.0",
            "0200",
            &long,
        ] {
            assert!(serde_yaml::from_str::<Statuses>(text).is_err(), "{text}");
        }
    }
}
