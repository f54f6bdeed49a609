//! What a reload, or an operator, sets of a running node: weight, whether it is a backup, options of its sockets.
//!
//! In: its section of the configuration. Out: the values for the next flow.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Node, State};
use crate::config::NodeTcp;
use crate::config::units::Rate;

/// An operator's order of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightOrder {
    /// This weight.
    Exactly(u32),
    /// A percentage of the weight that the file gives the node.
    Percent(u32),
}

impl WeightOrder {
    /// Returns the weight of a node to which the file gives `given`: at most 1000, rounded up, so that only 0 % is
    /// no weight.
    fn of(self, given: u32) -> u32 {
        let weight = match self {
            WeightOrder::Exactly(weight) => weight,
            WeightOrder::Percent(percent) => given.saturating_mul(percent).div_ceil(100),
        };
        weight.min(MAX_WEIGHT)
    }
}

impl FromStr for WeightOrder {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().ok().filter(|n| *n <= MAX_WEIGHT);
            number.filter(|_| digits)
        };
        let order = match text.strip_suffix('%') {
            Some(percent) => number(percent).map(WeightOrder::Percent),
            None => number(text).map(WeightOrder::Exactly),
        };
        order.ok_or("a whole number from 0 to 1000, or a percentage such as `50%`")
    }
}

/// Largest weight, as in the file.
const MAX_WEIGHT: u32 = 1000;

impl Node {
    /// Returns its weight relative to the other nodes of a pool; 0: no balanced flows.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Sets the weight that the file, or DNS, gives it. An ordered weight holds until that is another one.
    pub fn set_weight(&self, weight: u32) {
        if self.given_weight.swap(weight, Ordering::Relaxed) != weight {
            self.weight.store(weight, Ordering::Relaxed);
        }
    }

    /// Obeys an operator's order of a weight, and returns the weight that it has now. A node that had no weight
    /// starts slowly.
    pub fn order_weight(&self, wanted: WeightOrder) -> u32 {
        let given = self.given_weight.load(Ordering::Relaxed);
        let weight = wanted.of(given);
        let before = self.weight.swap(weight, Ordering::Relaxed);
        if before != weight {
            log::info!(
                "node {}: weight {weight}, ordered; it was {before}",
                self.name
            );
        }
        if before == 0 && weight > 0 && self.state() == State::Up {
            self.returned(Instant::now());
        }
        weight
    }

    /// Whether it gets balanced flows only while no other node of the pool can take them.
    pub fn is_backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    /// Sets whether it is a backup.
    pub fn set_backup(&self, backup: bool) {
        self.backup.store(backup, Ordering::Relaxed);
    }

    /// Returns the options of new sockets to the node.
    pub fn tcp(&self) -> NodeTcp {
        *self.tcp.lock()
    }

    /// Sets the options of later sockets.
    pub fn set_tcp(&self, tcp: NodeTcp) {
        *self.tcp.lock() = tcp;
    }

    /// Returns the address of this machine from which to connect; `None`: the kernel chooses.
    pub fn source(&self) -> Option<IpAddr> {
        *self.source.lock()
    }

    /// Sets the address from which later connects come.
    pub fn set_source(&self, source: Option<IpAddr>) {
        *self.source.lock() = source;
    }

    /// Sets how fast flows with an answer are closed when it goes Down; `None`: all at once.
    pub fn set_evict_rate(&self, rate: Option<Rate>) {
        *self.evict_rate.lock() = rate;
    }
}

#[cfg(test)]
mod tests {
    use super::WeightOrder;

    #[test]
    fn an_ordered_weight_is_a_number_or_a_percentage() {
        for (text, given, expected) in [
            ("0", 10, Some(0)),
            ("7", 10, Some(7)),
            ("1000", 1, Some(1000)),
            ("50%", 10, Some(5)),
            ("50%", 1, Some(1)),
            ("0%", 10, Some(0)),
            ("1%", 10, Some(1)),
            ("1000%", 1000, Some(1000)),
            ("1001", 1, None),
            ("-1", 1, None),
            ("+1", 1, None),
            ("50 %", 1, None),
            ("%", 1, None),
            ("", 1, None),
        ] {
            let order: Option<WeightOrder> = text.parse().ok();
            assert_eq!(
                order.map(|order| order.of(given)),
                expected,
                "{text} of {given}"
            );
        }
    }
}
