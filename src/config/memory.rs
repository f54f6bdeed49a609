//! What is told of memory: how much of it the process may use before it refuses new clients.

use std::fmt;

use pushgate_plugins::bounds::Size;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::defaults;
use super::units::{Bytes, Share};

const MIB: u64 = 1024 * 1024;

/// A limit in bytes: above what the idle process needs, and below what any machine has.
type Limit = Size<{ 32 * MIB }, { 64 * MIB * MIB }>;

/// Block `memory`.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Above it new clients are refused.
    #[serde(default)]
    pub limit: MemoryLimit,
}

/// A limit of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// A share of what the cgroup may use, or else of the machine's memory.
    Share(Share),
    /// So many bytes of this process and its sockets.
    Bytes(Bytes),
}

impl Default for MemoryLimit {
    fn default() -> Self {
        MemoryLimit::Share(defaults::MEMORY_LIMIT)
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = MemoryLimit;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a percentage from `1%` to `100%`, or {}", Limit::words())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<MemoryLimit, E> {
                let percent = text.strip_suffix('%').map(|n| n.trim_end().parse::<f64>());
                let limit = match percent {
                    Some(Ok(n)) if (1.0..=100.0).contains(&n) => {
                        Some(MemoryLimit::Share(Share(n / 100.0)))
                    }
                    Some(_) => None,
                    None => Limit::parse(text).map(MemoryLimit::Bytes),
                };
                limit.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        d.deserialize_any(V)
    }
}
