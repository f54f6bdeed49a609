//! Reads the request for a rebalance: `?to_even&rate=200/s&close`, or the same as JSON.
//!
//! In: a query and a body. Out: a [`RebalanceRequest`], or what is wrong with it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config;
use crate::config::units::{Rate, Share};

/// Goal of a rebalance.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Goal {
    /// No node has more than its share plus this part of it.
    Even(f64),
    /// This share of the named node's assignments is forgotten.
    Share(String, f64),
}

/// Who ordered a rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderedBy {
    /// An operator, through the API.
    Operator,
    /// The edge itself, after a node's return (`rebalance.auto`).
    Auto,
}

impl OrderedBy {
    /// Returns the word used in log, API and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            OrderedBy::Operator => "operator",
            OrderedBy::Auto => "auto",
        }
    }
}

/// A request for a rebalance.
#[derive(Clone, Debug, PartialEq)]
pub struct RebalanceRequest {
    /// The goal.
    pub goal: Goal,
    /// Clients moved, or forgotten, per second.
    pub rate: Rate,
    /// Whether live flows are closed.
    pub close: bool,
    /// Whether to report only what would be done.
    pub dry_run: bool,
    /// Only assignments learned before this second (since 1970) are forgotten; `None`: all made until now.
    pub before: Option<u64>,
}

/// Words of a query or body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    #[serde(default)]
    to_even: bool,
    from: Option<String>,
    share: Option<Share>,
    rate: Option<Rate>,
    tolerance: Option<Share>,
    close: Option<bool>,
    #[serde(default)]
    dry_run: bool,
    before: Option<u64>,
}

impl RebalanceRequest {
    /// Reads query and body; defaults come from the pool's `rebalance` block.
    ///
    /// Errors: one sentence for the operator.
    pub fn read(
        query: &[(String, String)],
        body: &[u8],
        pool: &config::Rebalance,
    ) -> Result<Self, String> {
        let mut words = match body {
            [] => Map::new(),
            body => serde_json::from_slice(body).map_err(|e| format!("body: {e}"))?,
        };
        for (key, text) in query {
            if words.insert(key.clone(), value(key, text)).is_some() {
                return Err(format!("`{key}` is given twice"));
            }
        }
        let words = serde_path_to_error::deserialize(Value::Object(words));
        let words: Words =
            words.map_err(|e: serde_path_to_error::Error<serde_json::Error>| {
                match e.path().to_string() {
                    path if path == "." => e.into_inner().to_string(),
                    path => format!("{path}: {}", e.into_inner()),
                }
            })?;
        Self::of(words, pool)
    }

    /// Returns the request that `rebalance.auto` makes.
    pub fn automatic(pool: &config::Rebalance) -> Self {
        RebalanceRequest {
            goal: Goal::Even(pool.tolerance.0),
            rate: pool.rate,
            close: pool.close,
            dry_run: false,
            before: None,
        }
    }

    fn of(words: Words, pool: &config::Rebalance) -> Result<Self, String> {
        let goal = match (words.from, words.share) {
            (Some(_), _) if words.to_even || words.tolerance.is_some() => {
                return Err("`from` moves a fixed share: not with `to_even` or `tolerance`".into());
            }
            (Some(from), Some(share)) if share.0 > 0.0 => Goal::Share(from, share.0),
            (Some(_), _) => return Err("`from` needs a `share` above 0%".into()),
            (None, Some(_)) => return Err("`share` needs `from`: the node".into()),
            (None, None) => Goal::Even(words.tolerance.unwrap_or(pool.tolerance).0),
        };
        Ok(RebalanceRequest {
            goal,
            rate: words.rate.unwrap_or(pool.rate),
            close: words.close.unwrap_or(pool.close),
            dry_run: words.dry_run,
            before: words.before,
        })
    }
}

/// Converts a value of a query to JSON; a key without a value is `true`.
fn value(key: &str, text: &str) -> Value {
    match text {
        "" | "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text if key == "before" => text.parse().map_or_else(|_| text.into(), |n: u64| n.into()),
        text => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, body: &str) -> Result<RebalanceRequest, String> {
        let pairs = query.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), text.to_owned())
        });
        let pairs: Vec<_> = pairs.collect();
        RebalanceRequest::read(&pairs, body.as_bytes(), &config::Rebalance::default())
    }

    #[test]
    fn senseless_orders_are_refused() {
        for (query, body, why) in [
            ("rte=5/s", "", "unknown field `rte`"),
            ("rate=5", "", "rate: "),
            ("rate=0/s", "", "rate: "),
            ("rate=-5/s", "", "rate: "),
            ("tolerance=5", "", "tolerance: "),
            ("tolerance=200%", "", "tolerance: "),
            ("from=ls1", "", "needs a `share`"),
            ("from=ls1&share=0%", "", "above 0%"),
            ("share=5%", "", "needs `from`"),
            ("from=ls1&share=5%&to_even", "", "not with `to_even`"),
            ("from=ls1&share=5%&tolerance=5%", "", "not with `to_even`"),
            ("close=maybe", "", "close: "),
            ("close&close", "", "twice"),
            ("close", r#"{"close":true}"#, "twice"),
            ("", r#"{"rate":5}"#, "rate: "),
            ("", "[]", "body: "),
            ("", "{", "body: "),
            ("before=-1", "", "before: "),
        ] {
            let said = read(query, body).expect_err(query);
            assert!(said.contains(why), "{query} {body}: {said}");
        }
    }

    #[test]
    fn query_and_body_say_the_same() {
        let defaults = config::Rebalance::default();
        let even = read("", "").expect("all by default");
        assert_eq!(even, RebalanceRequest::automatic(&defaults));
        let query = read(
            "to_even&rate=200/s&tolerance=2.5%&close&dry_run=true&before=7",
            "",
        );
        let body = r#"{"to_even":true,"rate":"200/s","tolerance":"2.5%","close":true,"dry_run":true,"before":7}"#;
        assert_eq!(query, read("", body));
        let ask = query.expect("sound");
        assert_eq!(
            (ask.goal, ask.close, ask.before),
            (Goal::Even(0.025), true, Some(7))
        );
        let from = read("from=ls1&share=30%", r#"{"close":true}"#).expect("sound");
        assert_eq!(from.goal, Goal::Share("ls1".into(), 0.3));
    }
}
