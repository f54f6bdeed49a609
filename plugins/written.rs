//! Writes values of the configuration in the form in which a file has them.
//!
//! In: decoded values. Out: text that decodes to the same values, for `check -T`, which prints a
//! configuration with every default.

use http::StatusCode;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::bounds::Refusal;
use crate::lifetime::JITTER;
use crate::memory::{CAPACITY, EXPIRY};
use crate::trust::Net;
use crate::units::{Bytes, MaybeRate, MaybeSpan, Pairs, Rate, Share, Span};

/// The keys of a table, some of them not given.
pub(crate) struct TableKeys<'a> {
    pub max_age: &'a mut Option<MaybeSpan>,
    pub jitter: &'a mut Option<Share>,
    pub expiry: &'a mut Option<MaybeSpan>,
    pub capacity: &'a mut Option<usize>,
}

impl TableKeys<'_> {
    /// Puts the defaults in place. `max_age` is the plugin's own.
    pub fn fill(self, max_age: MaybeSpan) {
        self.max_age.get_or_insert(max_age);
        self.jitter.get_or_insert(JITTER);
        self.expiry.get_or_insert(EXPIRY);
        self.capacity.get_or_insert(CAPACITY);
    }
}

macro_rules! as_text {
    ($($type:ty: $text:expr,)+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let text: fn(&$type) -> String = $text;
                s.serialize_str(&text(self))
            }
        }
    )+};
}

as_text! {
    Span: |span| span.to_string(),
    MaybeSpan: |span| span.0.map_or_else(|| "none".to_owned(), |s| Span(s).to_string()),
    Share: |share| share.written(),
    Rate: |rate| rate.to_string(),
    MaybeRate: |rate| rate.0.map_or_else(|| "off".to_owned(), |r| r.to_string()),
    Bytes: |bytes| bytes.written(),
    Net: |net| net.0.to_string(),
}

impl Share {
    /// Formats the share as a file has it: `10%`, `12.5%`.
    pub fn written(self) -> String {
        // A share is a percentage divided by 100, and the product may miss it by a last bit.
        let percent = (self.0 * 100.0 * 1e9).round() / 1e9;
        format!("{percent}%")
    }
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        status(&self.0, s)
    }
}

/// Writes a status as its number.
pub(crate) fn status<S: Serializer>(status: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u16(status.as_u16())
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) {
        let value: T = serde_yaml::from_str(text).expect(text);
        let written = serde_yaml::to_string(&value).expect(text);
        let again: T = serde_yaml::from_str(&written).expect(&written);
        assert_eq!(value, again, "{text} was written as {written}");
    }

    /// Aim: what is written decodes to the same value. Fails if a unit or a digit is lost.
    #[test]
    fn values_come_back() {
        for span in ["0s", "1ns", "250ms", "90s", "1h 30m", "3650d"] {
            comes_back::<Span>(span);
        }
        for span in ["none", "1s", "8h"] {
            comes_back::<MaybeSpan>(span);
        }
        for share in ["0%", "7%", "12.5%", "33.3%", "100%"] {
            comes_back::<Share>(share);
        }
        for rate in ["1/min", "90/min", "1000000/s"] {
            comes_back::<Rate>(rate);
            comes_back::<MaybeRate>(rate);
        }
        comes_back::<MaybeRate>("off");
        for size in ["0B", "4097B", "32KiB", "64TiB"] {
            comes_back::<Bytes>(size);
        }
        comes_back::<Pairs>("{ b: 1, a: 'x: y' }");
        comes_back::<crate::trust::Trust>("[10.0.0.0/8, 192.0.2.7, '2001:db8::/32']");
        assert_eq!(Share(0.07).written(), "7%");
    }
}
