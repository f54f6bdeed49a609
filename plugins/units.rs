//! Durations and sizes as people write them: `90s`, `2h`, `64KiB`.
//!
//! Parsed inside `visit_str`, so that a fault keeps its line. A bare number is refused: its unit
//! would be a guess.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A span of time: `500ms`, `90s`, `8h`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes: `4096B`, `32KiB`, `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

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
                f.write_str("a duration with its unit, as `500ms`, `90s`, `8h`")
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<Span, E> {
                humantime::parse_duration(s)
                    .map(Span)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(s), &self))
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
                f.write_str("a size with its unit, as `4096B`, `32KiB`, `1MiB`")
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<Bytes, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(s), &self);
                if s.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                    return Err(wrong());
                }
                s.parse::<bytesize::ByteSize>()
                    .map(|b| Bytes(b.0))
                    .map_err(|_| wrong())
            }
        }
        d.deserialize_str(V)
    }
}
