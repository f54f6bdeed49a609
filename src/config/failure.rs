//! Says what a pool does with requests that no node takes or answers: `no_node`, `on_lost`, `retry_unanswered`.
//!
//! In: values of the file. Out: the answer for the client, and how often another node is tried.
//! Source: Lightstreamer clustering §1, §5; RFC 9110 §9.2.2 (repeats), §15.6.3 (502), §15.6.4 (503).

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::bounds::MAX_RETRY_UNANSWERED;

/// Answer when no node can take the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoNode {
    /// 503 with a jittered Retry-After.
    #[default]
    Unavailable,
    /// Closes the connection without an answer, because some push clients notice nothing else.
    Close,
}

impl<'de> Deserialize<'de> for NoNode {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar {
            expected: "`503` or `close`".to_owned(),
            read: |text| match text {
                "503" => Some(NoNode::Unavailable),
                "close" => Some(NoNode::Close),
                _ => None,
            },
        })
    }
}

/// Answer when a node is lost before it answers a request that may not be repeated. A node is lost when it
/// goes Down, is ordered Down, or resets or closes the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLost {
    /// Closes the connection without an answer, as the node itself would; resets an HTTP/2 stream. The
    /// Lightstreamer Node client cannot see a status: it waited 23 s after a 502.
    #[default]
    Close,
    /// 502.
    BadGateway,
}

impl<'de> Deserialize<'de> for OnLost {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar {
            expected: "`close` or `502`".to_owned(),
            read: |text| match text {
                "close" => Some(OnLost::Close),
                "502" => Some(OnLost::BadGateway),
                _ => None,
            },
        })
    }
}

/// Decodes a number of tries; `off` is 0.
///
/// Errors: any other word, or a number that is negative, not whole, or above [`MAX_RETRY_UNANSWERED`].
pub(super) fn off_or_number<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    d.deserialize_any(Scalar {
        expected: format!("`off` or a whole number from 0 to {MAX_RETRY_UNANSWERED}"),
        read: |text| match text {
            "off" => Some(0),
            number => number.parse().ok().filter(|n| *n <= MAX_RETRY_UNANSWERED),
        },
    })
}

/// Decodes a value that YAML reads as a word or a number, such as `close` and `502`. A serde enum has no
/// variant for a number.
struct Scalar<T> {
    /// The accepted words and numbers, for the fault.
    expected: String,
    /// Returns the value of a text; `None` if the text is not accepted.
    read: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}
