//! Parses durations, sizes, rates and shares as people write them: `90s`, `2h`, `64KiB`, `50/s`, `10%`.
//!
//! It parses inside `visit_str`, so that a fault keeps its line. It refuses a bare number, whose unit would
//! be a guess; only a duration may be `0`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A span of time: `500ms`, `90s`, `8h`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl Span {
    /// Longest span: adding it to a clock or multiplying it by a count stays far from overflow.
    pub const MAX: Span = Span(Duration::from_secs(10 * 365 * 86_400));
}

impl std::str::FromStr for Span {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let span = humantime::parse_duration(s).map_err(|_| SPAN)?;
        match span <= Span::MAX.0 {
            true => Ok(Span(span)),
            false => Err("a duration up to `3650d`, ten years"),
        }
    }
}

/// How a fault describes a duration without bounds.
pub(crate) const SPAN: &str = "a duration with its unit, such as `500ms`, `90s`, `8h`";

/// Parses a duration of a command line. Errors: as for the text of a [`Span`].
pub fn duration(s: &str) -> Result<Duration, String> {
    s.parse()
        .map(|span: Span| span.0)
        .map_err(|wanted| format!("expected {wanted}"))
}

/// A span of time from one second, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaybeSpan(pub Option<Duration>);

/// A share as a percentage: `10%`; 0.0 to 1.0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

/// A number of events in a unit of time: `50/s`, `30/min`; above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    per_minute: u64,
}

/// Highest rate in events a second: far above what one edge can serve, and far from overflow.
const MAX_PER_SECOND: u64 = 1_000_000;

const RATE: &str = "a rate above zero and up to 1000000/s, such as `50/s`, `30/min`";

impl Rate {
    /// Highest rate.
    pub const MAX: Rate = Rate::a_second(MAX_PER_SECOND);

    /// Makes a rate of `n` a second; `n` is above zero.
    pub const fn a_second(n: u64) -> Self {
        Rate { per_minute: n * 60 }
    }

    /// Returns the sum of both rates.
    pub fn plus(self, other: Self) -> Self {
        Rate {
            per_minute: self.per_minute.saturating_add(other.per_minute),
        }
    }

    /// Returns the time between two events.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(60_000_000_000 / self.per_minute)
    }

    /// Returns the rate in events a second.
    pub fn per_second(self) -> f64 {
        self.per_minute as f64 / 60.0
    }
}

impl std::str::FromStr for Rate {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = RATE;
        let (count, unit) = s.split_once('/').ok_or(wrong)?;
        let each = match unit {
            "s" => 60,
            "min" => 1,
            _ => return Err(wrong),
        };
        // Rust would parse `+5` as a number.
        let digits = count.bytes().all(|b| b.is_ascii_digit());
        let count: u64 = count.parse().map_err(|_| wrong)?;
        if !digits || count == 0 || count > MAX_PER_SECOND {
            return Err(wrong);
        }
        Ok(Rate {
            per_minute: count * each,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per_minute {
            n if n.is_multiple_of(60) => write!(f, "{}/s", n / 60),
            n => write!(f, "{n}/min"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Rate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(RATE)
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<Rate, E> {
                s.parse()
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(s), &self))
            }
        }
        d.deserialize_str(V)
    }
}

/// A rate, or the word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaybeRate(pub Option<Rate>);

impl<'de> Deserialize<'de> for MaybeRate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = MaybeRate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{RATE}, or `off`")
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<MaybeRate, E> {
                if s == "off" {
                    return Ok(MaybeRate(None));
                }
                let rate = s.parse().map(|rate| MaybeRate(Some(rate)));
                rate.map_err(|_| E::invalid_value(serde::de::Unexpected::Str(s), &self))
            }
        }
        d.deserialize_str(V)
    }
}

/// A map of strings to strings in the file's order. It keeps duplicate keys, so that the plugin can report
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<(String, String)>);

/// A number of bytes: `4096B`, `32KiB`, `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Formats the size as a file has it: `4KiB`, `4097B`.
    pub fn written(self) -> String {
        let units = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        let whole = |(size, _): &(u64, &str)| self.0 >= *size && self.0.is_multiple_of(*size);
        match units.into_iter().find(whole) {
            Some((size, unit)) => format!("{}{unit}", self.0 / size),
            None => format!("{}B", self.0),
        }
    }
}

impl std::str::FromStr for Bytes {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        // `+5` and `5` are sizes to the crate; their unit would be a guess.
        if !s.ends_with(|c: char| c.is_ascii_alphabetic()) || s.starts_with('+') {
            return Err(SIZE);
        }
        s.parse::<bytesize::ByteSize>()
            .map(|b| Bytes(b.0))
            .map_err(|_| SIZE)
    }
}

const SIZE: &str = "a size with its unit, such as `4096B`, `32KiB`, `1MiB`";

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", bytesize::ByteSize(self.0).display().iec())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SPAN)
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<Span, E> {
                s.parse()
                    .map_err(|wanted| E::invalid_value(serde::de::Unexpected::Str(s), &wanted))
            }
        }
        d.deserialize_str(V)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SIZE)
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<Bytes, E> {
                s.parse()
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(s), &self))
            }
        }
        d.deserialize_str(V)
    }
}

impl<'de> Deserialize<'de> for MaybeSpan {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = MaybeSpan;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration from 1s to 3650d, such as `90s`, `8h`, or `none`")
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<MaybeSpan, E> {
                if s == "none" {
                    return Ok(MaybeSpan(None));
                }
                match s.parse::<Span>() {
                    Ok(Span(span)) if span >= Duration::from_secs(1) => Ok(MaybeSpan(Some(span))),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(s), &self)),
                }
            }
        }
        d.deserialize_str(V)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Share;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percentage from `0%` to `100%`")
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<Share, E> {
                s.strip_suffix('%')
                    .and_then(|n| n.trim_end().parse::<f64>().ok())
                    .filter(|n| (0.0..=100.0).contains(n))
                    .map(|n| Share(n / 100.0))
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(s), &self))
            }
        }
        d.deserialize_str(V)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a block of names, each with its value")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut m: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = m.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        d.deserialize_map(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_and_bounded() {
        for bad in [
            "8",
            "-1s",
            "forever",
            "8 parsecs",
            "''",
            "3651d",
            "500000000000y",
            "18446744073709551615y",
        ] {
            assert!(serde_yaml::from_str::<Span>(bad).is_err(), "{bad}");
            assert!(serde_yaml::from_str::<MaybeSpan>(bad).is_err(), "{bad}");
        }
        // An assignment that lives for less would be forgotten before its client is back.
        for bad in ["0s", "999ms"] {
            assert!(serde_yaml::from_str::<MaybeSpan>(bad).is_err(), "{bad}");
        }
        for bad in ["5", "+5", "+5B", "5.", "B", "5 apples"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        for (size, written) in [
            (0, "0B"),
            (4097, "4097B"),
            (4096, "4KiB"),
            (1 << 20, "1MiB"),
            (3 << 30, "3GiB"),
            (1 << 46, "64TiB"),
        ] {
            assert_eq!(Bytes(size).written(), written);
            assert_eq!(written.parse(), Ok(Bytes(size)), "{written}");
        }
        for bad in ["10", "0.1", "-1%", "101%", "NaN%", "%"] {
            assert!(serde_yaml::from_str::<Share>(bad).is_err(), "{bad}");
        }
        for bad in [
            "50",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "50/h",
            "/s",
            "2000000/s",
        ] {
            assert!(serde_yaml::from_str::<Rate>(bad).is_err(), "{bad}");
            assert!(serde_yaml::from_str::<MaybeRate>(bad).is_err(), "{bad}");
        }
        for (good, per_second) in [("50/s", 50.0), ("30/min", 0.5)] {
            let rate: Rate = serde_yaml::from_str(good).expect(good);
            assert_eq!(
                (rate.per_second(), rate.to_string()),
                (per_second, good.into())
            );
        }
        let maybe = |s| serde_yaml::from_str::<MaybeRate>(s).expect(s).0;
        assert_eq!(maybe("off"), None);
        let half = maybe("30/min").map(Rate::interval);
        assert_eq!(half, Some(Duration::from_secs(2)));
        let age = |s| serde_yaml::from_str::<MaybeSpan>(s).expect(s).0;
        assert_eq!(age("none"), None);
        assert_eq!(age("3650d"), Some(Span::MAX.0));
        assert_eq!(age("8h"), Some(Duration::from_secs(28_800)));
        assert_eq!(
            serde_yaml::from_str::<Share>("12.5%").expect("share"),
            Share(0.125)
        );
    }

    #[test]
    fn pairs_keep_duplicate_keys() {
        let p: Pairs = serde_yaml::from_str("{ a: x, A: y }").expect("pairs");
        assert_eq!(p.0.len(), 2);
    }
}
