//! The options of `pushgate simulate`: the clients, and the script of what happens when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use http::Uri;

use crate::config::Config;
use crate::config::units::duration;
use crate::explain::Question;

/// Most clients of a run; each takes some 600 bytes.
const MAX_CLIENTS: usize = 5_000_000;

/// Most edges of a run; each has its own nodes and tables.
const MAX_EDGES: usize = 64;

/// The options of a run.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Settings {
    /// Number of clients, like `500` or `100k`.
    #[arg(long, value_name = "N", default_value = "10k", value_parser = count)]
    pub clients: usize,
    /// Number of edges; each flow of a client reaches any of them.
    #[arg(long, value_name = "N", default_value = "1", value_parser = edges)]
    pub edges: usize,
    /// Whether the edges share a store (default: whether the file has `state`). Without one each knows only its own
    /// clients and flows.
    #[arg(long, value_name = "true|false")]
    pub store: Option<bool>,
    /// Part of the clients behind shared addresses, like `30%`.
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = share)]
    pub nat: f64,
    /// Clients behind each shared address.
    #[arg(long, value_name = "N", default_value = "500", value_parser = count)]
    pub per_address: usize,
    /// Part of the clients that return cookies.
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = share)]
    pub cookies: f64,
    /// Time over which the clients arrive, evenly.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub arrive: Duration,
    /// Time until a client opens its session's next flow, half of it more or less.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub rebind: Duration,
    /// Mean time until a client leaves for good and another comes (default: never).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub stay: Option<Duration>,
    /// Pause before a client that was cut connects again.
    #[arg(long, value_name = "FROM..TO", default_value = "0s..5s")]
    pub reconnect: Times,
    /// Length of the run.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub duration: Duration,
    /// Let a node's process die: its flows end and connects are refused. Repeatable.
    #[arg(long, value_name = "NODE@TIME")]
    pub fail: Vec<Moment>,
    /// Let a node hang: it accepts connections and sends nothing more. Repeatable.
    #[arg(long, value_name = "NODE@TIME")]
    pub hang: Vec<Moment>,
    /// Bring a node back after a failure, a hang or a drain; `@600s`: all nodes taken away. Repeatable.
    #[arg(long = "return", value_name = "[NODE]@TIME")]
    pub back: Vec<Back>,
    /// Drain a node. Repeatable.
    #[arg(long, value_name = "NODE@TIME")]
    pub drain: Vec<Moment>,
    /// Rebalance a pool, with the words of `pushgate rebalance`: `push@10m:to-even,rate=200/s,close`.
    /// Repeatable.
    #[arg(long, value_name = "POOL@TIME[:WORD,…]")]
    pub rebalance: Vec<Order>,
    /// URL that clients request (default: the first listener's address).
    #[arg(long, value_name = "URL")]
    pub to: Option<Uri>,
    /// Address that the URL's host name resolves to.
    #[arg(long, value_name = "IP")]
    pub vip: Option<IpAddr>,
    /// Time between two printed lines.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    pub step: Duration,
    /// Seed of the random numbers; another seed gives another run.
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Print JSON: a sample for each second, and the totals.
    #[arg(long)]
    pub json: bool,
}

impl Settings {
    /// Whether several edges share a store.
    pub(super) fn has_store(&self, config: &Config) -> bool {
        self.edges > 1 && self.store.unwrap_or(config.state.is_some())
    }

    /// Returns the question for `explain` that finds the listener and the request of the clients.
    pub(super) fn question(&self, to: Uri) -> Question {
        Question {
            to,
            from: [192, 0, 2, 1].into(),
            vip: self.vip,
            sni: None,
            method: "POST".to_owned(),
            cookie: Vec::new(),
            body: String::new(),
            header: Vec::new(),
        }
    }

    /// Returns the actions of the script with node and time, unordered.
    ///
    /// Errors: a `--return @TIME` before which the script takes no node away.
    pub(super) fn moments(&self) -> Result<Vec<(Action, Moment)>, String> {
        let of = |action, all: &[Moment]| -> Vec<(Action, Moment)> {
            all.iter().map(|m| (action, m.clone())).collect()
        };
        let mut all = of(Action::Fail, &self.fail);
        all.extend(of(Action::Hang, &self.hang));
        all.extend(of(Action::Drain, &self.drain));
        let away = all.clone();
        for Back { node, at } in &self.back {
            let taken = away.iter().filter(|(_, m)| m.at <= *at);
            let taken: BTreeSet<&String> = match node {
                Some(node) => BTreeSet::from([node]),
                None => taken.map(|(_, m)| &m.node).collect(),
            };
            if taken.is_empty() {
                let at = humantime::format_duration(*at);
                return Err(format!("--return @{at}: no node was taken away before"));
            }
            all.extend(taken.into_iter().map(|node| {
                let node = node.clone();
                (Action::Return, Moment { node, at: *at })
            }));
        }
        Ok(all)
    }
}

/// What the script does to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The node's process dies.
    Fail,
    /// The node accepts connections and sends nothing more.
    Hang,
    /// The node is back.
    Return,
    /// The operator drains the node.
    Drain,
}

impl Action {
    /// Returns the verb in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Fail => "fails",
            Action::Hang => "hangs",
            Action::Return => "is back",
            Action::Drain => "is drained",
        }
    }

    /// Returns the option of the command line.
    pub fn option(self) -> &'static str {
        match self {
            Action::Fail => "fail",
            Action::Hang => "hang",
            Action::Return => "return",
            Action::Drain => "drain",
        }
    }
}

/// A node and a time from the start of the run: `ls2@60s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The node's name.
    pub node: String,
    /// Time from the start of the run.
    pub at: Duration,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parts = s.rsplit_once('@').filter(|(node, _)| !node.is_empty());
        let parsed = parts.and_then(|(node, at)| {
            let at = duration(at).ok()?;
            Some(Moment {
                node: node.to_owned(),
                at,
            })
        });
        parsed.ok_or_else(|| "expected a node and a time, like `ls2@60s`".to_owned())
    }
}

/// When one node returns, or all nodes taken away before: `ls2@10m`, `@10m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    /// The node's name; `None`: all nodes taken away before.
    pub node: Option<String>,
    /// Time from the start of the run.
    pub at: Duration,
}

impl FromStr for Back {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if let Some(at) = s.strip_prefix('@').and_then(|at| duration(at).ok()) {
            return Ok(Back { node: None, at });
        }
        let wanted =
            |_| "expected a node and a time, like `ls2@10m`, or a time, like `@10m`".to_owned();
        let Moment { node, at } = s.parse().map_err(wanted)?;
        Ok(Back {
            node: Some(node),
            at,
        })
    }
}

/// A rebalance of a pool at a time: `push@10m:to-even,rate=200/s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The pool's name.
    pub pool: String,
    /// Time from the start of the run.
    pub at: Duration,
    /// Parameters of the API's rebalance order; an empty value switches one on.
    pub words: Vec<(String, String)>,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (when, words) = s.split_once(':').unwrap_or((s, ""));
        let Moment { node: pool, at } = when.parse().map_err(|_: String| {
            "expected a pool and a time, like `push@10m` or `push@10m:to-even,close`".to_owned()
        })?;
        let words = words.split(',').filter(|word| !word.is_empty());
        let word = |word: &str| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key.replace('-', "_"), value.to_owned())
        };
        Ok(Order {
            pool,
            at,
            words: words.map(word).collect(),
        })
    }
}

/// A range from which times are drawn at random: `0s..5s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Shortest time.
    pub from: Duration,
    /// Longest time.
    pub to: Duration,
}

impl Times {
    /// Draws a time from the range.
    pub fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        self.from + self.to.saturating_sub(self.from).mul_f64(rng.f64())
    }
}

impl FromStr for Times {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (from, to) = s.split_once("..").unwrap_or((s, s));
        let parse = |s| duration(s).ok();
        match (parse(from), parse(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Times { from, to }),
            _ => Err("expected a time or a range of times, like `2s` or `0s..5s`".to_owned()),
        }
    }
}

fn count(s: &str) -> Result<usize, String> {
    let (digits, unit) = match s.as_bytes().last() {
        Some(b'k') => (&s[..s.len() - 1], 1_000),
        Some(b'm') => (&s[..s.len() - 1], 1_000_000),
        _ => (s, 1),
    };
    let n = digits
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_mul(unit));
    let n = n.filter(|n| (1..=MAX_CLIENTS).contains(n));
    n.ok_or_else(|| format!("expected 1 to {MAX_CLIENTS}, like `500` or `100k`"))
}

fn edges(s: &str) -> Result<usize, String> {
    let n = s.parse().ok().filter(|n| (1..=MAX_EDGES).contains(n));
    n.ok_or_else(|| format!("expected 1 to {MAX_EDGES}"))
}

fn share(s: &str) -> Result<f64, String> {
    let parsed = match s.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|p| p / 100.0),
        None => s.parse::<f64>(),
    };
    let parsed = parsed.ok().filter(|s| (0.0..=1.0).contains(s));
    parsed.ok_or_else(|| "expected a share, like `30%` or `0.3`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line() {
        for (s, want) in [
            ("500", Some(500)),
            ("100k", Some(100_000)),
            ("1m", Some(1_000_000)),
            ("0", None),
            ("6m", None),
            ("k", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(count(s).ok(), want, "{s}");
        }
        for (s, want) in [
            ("30%", Some(0.3)),
            ("0.3", Some(0.3)),
            ("101%", None),
            ("-1", None),
            ("NaN", None),
            ("x", None),
        ] {
            assert_eq!(share(s).ok(), want, "{s}");
        }
        for (s, good) in [
            ("ls2@60s", true),
            ("a@b@1m 30s", true),
            ("ls2", false),
            ("@60s", false),
            ("ls2@60", false),
            ("ls2@11y", false),
        ] {
            assert_eq!(s.parse::<Moment>().is_ok(), good, "{s}");
        }
        let order: Order = "push@1m 30s:from=n-1,share=30%,dry-run"
            .parse()
            .expect("an order");
        assert_eq!((order.pool.as_str(), order.at.as_secs()), ("push", 90));
        let words = [("from", "n-1"), ("share", "30%"), ("dry_run", "")];
        assert_eq!(
            order.words,
            words.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert!("push:close".parse::<Order>().is_err());
        for (s, good) in [
            ("0s..5s", true),
            ("2s", true),
            ("5s..1s", false),
            ("..", false),
        ] {
            assert_eq!(s.parse::<Times>().is_ok(), good, "{s}");
        }
    }
}
