//! The weight of a node: what the file gives it, what an operator orders, what its agent says.
//!
//! In: the three. Out: the weight that counts. An order stands above the agent, the agent above the file.

use std::str::FromStr;

/// An order of a weight.
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

/// Largest weight, as in the file, and largest percentage.
pub const MAX_WEIGHT: u32 = 1000;

/// What decides the weight of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// That of the file, or of DNS.
    given: u32,
    /// That of an operator's order.
    ordered: Option<u32>,
    /// Percentage that its agent said.
    agent: Option<u32>,
}

impl Weights {
    /// The weights of a node to which the file gives `given`.
    pub fn new(given: u32) -> Self {
        Weights {
            given,
            ordered: None,
            agent: None,
        }
    }

    /// Returns the weight that counts.
    pub fn now(&self) -> u32 {
        let agent = self.agent.unwrap_or(100);
        self.ordered
            .unwrap_or_else(|| WeightOrder::Percent(agent).of(self.given))
    }

    /// Returns that of the file.
    pub fn given(&self) -> u32 {
        self.given
    }

    /// Sets that of the file. An order holds until that is another one.
    pub fn give(&mut self, given: u32) {
        if std::mem::replace(&mut self.given, given) != given {
            self.ordered = None;
        }
    }

    /// Obeys an order. 100 % withdraws the order before.
    pub fn order(&mut self, wanted: WeightOrder) {
        self.ordered = match wanted {
            WeightOrder::Percent(100) => None,
            wanted => Some(wanted.of(self.given)),
        };
    }

    /// Sets the percentage of the agent; `None`: it has none.
    pub fn set_agent(&mut self, percent: Option<u32>) {
        self.agent = percent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Aim: an order stands above the agent until 100 % or another weight in the file takes it back. Fails if the next
    /// answer of the agent ends an order.
    #[test]
    fn an_order_stands_above_the_agent() {
        let mut weights = Weights::new(10);
        weights.set_agent(Some(75));
        assert_eq!(weights.now(), 8);
        weights.order(WeightOrder::Percent(50));
        weights.set_agent(Some(20));
        assert_eq!(weights.now(), 5);
        weights.give(10);
        assert_eq!(weights.now(), 5, "the same file");
        weights.order(WeightOrder::Percent(100));
        assert_eq!(weights.now(), 2);
        weights.order(WeightOrder::Exactly(9));
        weights.give(20);
        assert_eq!(weights.now(), 4, "another weight in the file");
        weights.set_agent(None);
        assert_eq!(weights.now(), 20);
    }
}
