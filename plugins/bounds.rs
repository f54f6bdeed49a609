//! Bounds of a key's value, written once: at the field that has the value.
//!
//! A field names its bounds as `#[serde(deserialize_with = "Whole::<1, 100>::read")]`. In: the value in
//! the file. Out: the value, or a fault in the words that an operator reads: `a whole number from 1 to
//! 100`. The same words answer a list, a negative number and a 0, and a test holds the documents
//! against them.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::time::Duration;

use http::StatusCode;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::units::{Bytes, SPAN, Span};

/// A whole number from `MIN` to `MAX`, both included.
pub struct Whole<const MIN: u64, const MAX: u64>;

/// A duration above zero: a deadline of nothing would refuse everything.
pub struct AboveZero;

/// A duration from `MIN` to `MAX` seconds, both included.
pub struct Seconds<const MIN: u64, const MAX: u64>;

/// A duration from `MIN` to `MAX` milliseconds, both included.
pub struct Millis<const MIN: u64, const MAX: u64>;

/// A size from `MIN` to `MAX` bytes, both included.
pub struct Size<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// Reads a number. Errors: one outside the bounds, and what is no whole number.
    pub fn read<'de, T: Number, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        d.deserialize_any(WholeVisitor::<T, MIN, MAX>(PhantomData))
    }
}

impl AboveZero {
    /// Reads a duration. Errors: `0s`, and what is no duration.
    pub fn read<'de, T: Holds<Span>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        d.deserialize_any(SpanVisitor {
            min: Duration::from_nanos(1),
            max: Span::MAX.0,
            holder: PhantomData,
        })
    }
}

impl<const MIN: u64, const MAX: u64> Seconds<MIN, MAX> {
    /// Reads a duration. Errors: one outside the bounds, and what is no duration.
    pub fn read<'de, T: Holds<Span>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        d.deserialize_any(SpanVisitor {
            min: Duration::from_secs(MIN),
            max: Duration::from_secs(MAX),
            holder: PhantomData,
        })
    }
}

impl<const MIN: u64, const MAX: u64> Millis<MIN, MAX> {
    /// Reads a duration. Errors: one outside the bounds, and what is no duration.
    pub fn read<'de, T: Holds<Span>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        d.deserialize_any(SpanVisitor {
            min: Duration::from_millis(MIN),
            max: Duration::from_millis(MAX),
            holder: PhantomData,
        })
    }
}

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    /// Reads a size. Errors: one outside the bounds, and what is no size.
    pub fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        d.deserialize_any(Self)
    }

    /// What is expected, in words.
    pub fn words() -> String {
        let (min, max) = (Bytes(MIN).written(), Bytes(MAX).written());
        format!("a size from {min} to {max}")
    }

    /// The size that `text` says. `None`: outside the bounds, or no size.
    pub fn parse(text: &str) -> Option<Bytes> {
        let size: Bytes = text.parse().ok()?;
        (MIN..=MAX).contains(&size.0).then_some(size)
    }
}

/// Status of a refusal, 400 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub StatusCode);

impl Number for Refusal {
    fn of(number: u64) -> Option<Self> {
        let status = StatusCode::from_u16(number.try_into().ok()?);
        status.ok().map(Refusal)
    }
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Whole::<400, 599>::read(d)
    }
}

/// A number that a field holds, or may hold.
pub trait Number: Sized {
    /// The value of a number in the file; `None`: it does not fit.
    fn of(number: u64) -> Option<Self>;

    /// The value where the file says `~`; `None`: there must be one.
    fn nothing() -> Option<Self> {
        None
    }
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Number for $type {
            fn of(number: u64) -> Option<Self> {
                number.try_into().ok()
            }
        }
    )+};
}

numbers!(u8, u16, u32, usize);

impl Number for NonZeroUsize {
    fn of(number: u64) -> Option<Self> {
        NonZeroUsize::new(number.try_into().ok()?)
    }
}

impl<T: Number> Number for Option<T> {
    fn of(number: u64) -> Option<Self> {
        T::of(number).map(Some)
    }

    fn nothing() -> Option<Self> {
        Some(None)
    }
}

/// A field that holds a `V`, or may hold one.
pub trait Holds<V>: From<V> {
    /// The value where the file says `~`; `None`: there must be one.
    fn nothing() -> Option<Self>;
}

impl<V> Holds<V> for V {
    fn nothing() -> Option<Self> {
        None
    }
}

impl<V> Holds<V> for Option<V> {
    fn nothing() -> Option<Self> {
        Some(None)
    }
}

struct WholeVisitor<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

impl<T: Number, const MIN: u64, const MAX: u64> Visitor<'_> for WholeVisitor<T, MIN, MAX> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MAX - MIN {
            1 => write!(f, "`{MIN}` or `{MAX}`"),
            _ => write!(f, "a whole number from {MIN} to {MAX}"),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let within = (MIN..=MAX).contains(&number);
        let value = within.then(|| T::of(number)).flatten();
        value.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        T::nothing().ok_or_else(|| E::invalid_type(Unexpected::Unit, &self))
    }
}

struct SpanVisitor<T> {
    min: Duration,
    max: Duration,
    holder: PhantomData<T>,
}

impl<T: Holds<Span>> Visitor<'_> for SpanVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max == Span::MAX.0 {
            true => f.write_str("a duration above zero, such as `500ms`, `90s`, `8h`"),
            false => write!(
                f,
                "a duration from {} to {}, such as `90s`",
                Span(self.min),
                Span(self.max)
            ),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let found = Unexpected::Str(text);
        match text.parse::<Span>() {
            Ok(span) if (self.min..=self.max).contains(&span.0) => Ok(span.into()),
            // Longer than any duration.
            Err(expected) if expected != SPAN => Err(E::invalid_value(found, &expected)),
            _ => Err(E::invalid_value(found, &self)),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        T::nothing().ok_or_else(|| E::invalid_type(Unexpected::Unit, &self))
    }
}

impl<const MIN: u64, const MAX: u64> Visitor<'_> for Size<MIN, MAX> {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::words())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        Self::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Keys {
        #[serde(deserialize_with = "Whole::<2, 100>::read")]
        whole: Option<u8>,
        #[serde(deserialize_with = "Whole::<1, 2>::read")]
        either: u8,
        #[serde(deserialize_with = "Whole::<0, 300>::read")]
        narrow: u8,
        #[serde(deserialize_with = "AboveZero::read")]
        above: Option<Span>,
        #[serde(deserialize_with = "Seconds::<1, 90>::read")]
        seconds: Option<Span>,
        #[serde(deserialize_with = "Size::<1, 4096>::read")]
        size: Bytes,
    }

    impl Default for Keys {
        fn default() -> Self {
            Keys {
                whole: None,
                either: 1,
                narrow: 0,
                above: None,
                seconds: None,
                size: Bytes(1),
            }
        }
    }

    /// The bounds themselves, and the words for what is outside.
    #[test]
    fn what_is_outside_is_refused_in_our_words() {
        for (yaml, words) in [
            ("whole: 1", "a whole number from 2 to 100"),
            ("whole: 101", "a whole number from 2 to 100"),
            ("whole: -2", "a whole number from 2 to 100"),
            ("whole: 2.5", "a whole number from 2 to 100"),
            ("whole: \"2\"", "a whole number from 2 to 100"),
            ("whole: []", "a whole number from 2 to 100"),
            ("either: 3", "`1` or `2`"),
            ("either: ~", "`1` or `2`"),
            ("narrow: 256", "a whole number from 0 to 300"),
            ("above: 0s", "a duration above zero"),
            ("above: 90", "a duration above zero"),
            ("above: 3651d", "a duration up to `3650d`"),
            ("seconds: 999ms", "a duration from 1s to 1m 30s"),
            ("seconds: 91s", "a duration from 1s to 1m 30s"),
            ("size: 0B", "a size from 1B to 4KiB"),
            ("size: 4097B", "a size from 1B to 4KiB"),
            ("size: 5", "a size from 1B to 4KiB"),
            ("size: ~", "a size from 1B to 4KiB"),
        ] {
            let fault = serde_yaml::from_str::<Keys>(yaml).expect_err(yaml);
            assert!(fault.to_string().contains(words), "{yaml}: {fault}");
        }
        for yaml in [
            "{ whole: 2, either: 1, narrow: 0, above: 1ns, seconds: 1s, size: 1B }",
            "{ whole: 100, either: 2, narrow: 255, above: 3650d, seconds: 90s, size: 4096B }",
            "{ whole: ~, above: ~, seconds: ~ }",
        ] {
            serde_yaml::from_str::<Keys>(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
        }
    }
}
