//! Shows nodes to the operator, and carries out orders to them.
//!
//! In: the running nodes, with those that a reload removed as long as they have flows. Out: JSON, gauges,
//! orders. Source: Lightstreamer clustering §5; FAULTS D66, D71.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pushgate_plugins::unix::Shown;
use serde_json::{Value, json};

use super::shared::Admin;
use crate::config::units::{Rate, Span};
use crate::control::parts::Listed;
use crate::control::site::give::Given;
use crate::control::site::obey::{date, obey};
use crate::control::site::order::{Subject, What};
use crate::observe::metrics;
use crate::upstream::drain::Progress;
use crate::upstream::node_status::{CheckResult, LastCheck};
use crate::upstream::{AgentVerdict, Node, State, WeightOrder};

/// Longest wait for the checks of a node that was ordered up: two at their usual interval, and some more.
const CHECKS: Duration = Duration::from_secs(3);

/// Handles `GET /api/nodes`.
pub(super) async fn all(Shared(admin): Shared<Arc<Admin>>) -> Json<Value> {
    Json(admin.nodes())
}

impl Admin {
    /// Returns all nodes by name.
    pub(super) fn nodes(&self) -> Value {
        let pools = self.running.pools();
        let now = Instant::now();
        let one = |listed: &Listed| {
            let (node, status) = (&listed.node, listed.node.status.get());
            let ago = |at: Instant| now.saturating_duration_since(at).as_secs();
            let held = status
                .held_until
                .and_then(|u| u.checked_duration_since(now));
            let check = status.check.map(|c| {
                json!({
                    "outcome": c.result.as_str(), "result": c.result.old_str(), "said": c.said, "seconds_ago": ago(c.at),
                    "took_seconds": c.took.as_secs_f64(),
                })
            });
            let agent = listed.node.agent();
            let agent = agent.last().map(|last| {
                json!({
                    "outcome": last.result.as_str(), "said": last.said, "seconds_ago": ago(last.at),
                    "verdict": agent.verdict().as_str(), "weight_percent": agent.percent(),
                    "overruled": agent.is_overruled(),
                })
            });
            let has = |p: &crate::balance::Pool| p.nodes.iter().any(|n| Arc::ptr_eq(n, node));
            let of = pools.values().filter(|p| has(p));
            let mut of: Vec<_> = of.map(|p| p.name.clone()).collect();
            of.sort();
            json!({
                "name": node.name, "address": Shown(node.address).to_string(), "weight": node.weight(), "backup": node.is_backup(),
                "state": listed.state().as_str(), "flows": node.live(), "site_flows": node.load.of_site(), "flows_total": node.total(),
                "pools": of, "source": listed.source, "slow_start": node.limits.is_ramping(),
                "drain": node.progress(now).map(progress), "removed": listed.removed,
                "order": node.ordered().as_str(), "ordered": self.ordered(listed), "why": status.why, "state_seconds": ago(status.since),
                "held_seconds": held.map(|h| h.as_secs_f64().ceil() as u64), "check": check, "agent": agent,
            })
        };
        self.running.listed().iter().map(one).collect()
    }

    /// Sets the gauges of all nodes. Nodes of the same name are added up, with the state of
    /// the one that stays.
    pub(super) fn measure_nodes(&self) {
        let m = metrics::get();
        let listed = self.running.listed();
        let mut flows: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for one in &listed {
            let name = one.node.name.as_str();
            let is_first = !flows.contains_key(name);
            let (here, of_site) = flows.entry(name).or_default();
            *here += one.node.live();
            *of_site += one.node.load.of_site();
            if is_first {
                let gauge = m.node_backup.with_label_values(&[name]);
                gauge.set(one.node.is_backup().into());
                let gauge = m.node_weight.with_label_values(&[name]);
                gauge.set(one.node.weight().into());
            }
            for state in [State::Up, State::Draining, State::Down] {
                let gauge = m.node_state.with_label_values(&[name, state.as_str()]);
                if is_first {
                    gauge.set(i64::from(one.state() == state));
                }
            }
        }
        for (name, (flows, of_site)) in flows {
            m.node_flows.with_label_values(&[name]).set(flows as i64);
            let gauge = m.node_site_flows.with_label_values(&[name]);
            gauge.set(of_site as i64);
        }
    }

    /// Returns where and when the order that holds for a node was given; null if none was.
    fn ordered(&self, listed: &Listed) -> Value {
        let book = self.running.site.book.lock();
        let subject = Subject::State(listed.node.name.clone());
        let shown = book.shown(&subject).filter(|_| !listed.removed);
        shown.map_or(
            Value::Null,
            |(order, here)| json!({ "edge": order.by, "at": order.at / 1000, "here": here }),
        )
    }

    /// Returns the nodes an order means: those of the name that stay. If none stays, or if
    /// `removed` is set: those that a reload removed.
    fn meant(&self, name: &str, removed: bool) -> Vec<Listed> {
        let mut named = self.running.listed();
        named.retain(|l| l.node.name == name);
        let removed = removed || named.iter().all(|l| l.removed);
        named.retain(|l| l.removed == removed);
        named
    }
}

/// Rounds to whole seconds: the estimates are no better.
fn progress(p: Progress) -> Value {
    let seconds = |d: Duration| d.as_secs();
    json!({
        "seconds": p.since.map(seconds), "deadline_seconds": p.left.map(seconds),
        "eta_seconds": {
            "half": seconds(p.eta.half), "most": seconds(p.eta.most), "last": seconds(p.eta.last),
        },
    })
}

/// Handles `POST /api/nodes/NAME/ORDER`.
pub(super) async fn order(
    Shared(admin): Shared<Arc<Admin>>,
    Path((name, word)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let wanted = match Wanted::of(query) {
        Ok(wanted) if word == "drain" || !wanted.is_paced() => wanted,
        Ok(_) => {
            let said = "only `drain` takes a deadline and a rate\n";
            return (StatusCode::BAD_REQUEST, said).into_response();
        }
        Err(fault) => return (StatusCode::BAD_REQUEST, format!("{fault}\n")).into_response(),
    };
    if wanted.to.is_some() && word != "weight" {
        return (StatusCode::BAD_REQUEST, "only `weight` takes `to`\n").into_response();
    }
    let meant = admin.meant(&name, wanted.removed);
    let Some(first) = meant.first() else {
        return (StatusCode::NOT_FOUND, "no such node\n").into_response();
    };
    let nodes = meant.iter().map(|l| &l.node);
    if word == "evict" {
        let evicted: usize = nodes.map(|n| n.evict()).sum();
        let mut answer = json!({ "evicted": evicted });
        if !first.removed && !wanted.here {
            say(&mut answer, admin.running.evict_elsewhere(&name).await);
        }
        return Json(answer).into_response();
    }
    let Some(what) = wanted.what(&word, &first.node) else {
        let said = match word.as_str() {
            "weight" => "expected `?to=` with a weight or a percentage\n",
            _ => "expected up, drain, down, evict or weight\n",
        };
        let status = match word.as_str() {
            "weight" => StatusCode::BAD_REQUEST,
            _ => StatusCode::NOT_FOUND,
        };
        return (status, said).into_response();
    };
    let given = match first.removed {
        true => {
            nodes.for_each(|n| obey(n, &what.clone().here()));
            Given::Here
        }
        false => {
            let subject = match word.as_str() {
                "weight" => Subject::Weight(name.clone()),
                _ => Subject::State(name.clone()),
            };
            admin.running.give(subject, what, wanted.here).await
        }
    };
    let mut answer = json!({ "name": name });
    if word == "weight" {
        answer["weight"] = first.node.weight().into();
    } else {
        answer["state"] = first.state().as_str().into();
    }
    say(&mut answer, given);
    if word == "up" {
        wait_for_checks(&first.node).await;
        answer["state"] = first.state().as_str().into();
        if first.state() != State::Up {
            answer["why"] = obstacle(first).into();
        }
    }
    Json(answer).into_response()
}

/// Adds to an answer how far the order got in the site.
fn say(answer: &mut Value, given: Given) {
    if let Some(shown) = given.shown() {
        answer["site"] = shown.into();
    }
}

/// Waits for the checks that bring a node up after an order, if its last one passed: otherwise the answer would be
/// `down`, and wrong a moment later.
async fn wait_for_checks(node: &Node) {
    let passed = |check: LastCheck| check.result == CheckResult::Pass;
    if !node.is_healthy() && node.status.get().check.is_some_and(passed) {
        let mut states = node.watch();
        let up = states.wait_for(|state| *state == State::Up);
        // The answer has the state, whatever the wait brought.
        let _ = tokio::time::timeout(CHECKS, up).await;
    }
}

/// Returns what keeps a node from being Up, whatever the operator orders.
fn obstacle(listed: &Listed) -> String {
    let (node, agent) = (&listed.node, listed.node.agent());
    if !node.is_healthy() {
        let check = node.status.get().check;
        return match check.filter(|c| c.result != CheckResult::Pass) {
            Some(check) => check.said,
            None => "its checks have not passed often enough yet".to_owned(),
        };
    }
    match agent.last() {
        Some(last) if agent.verdict() != AgentVerdict::Up => format!("agent: {}", last.said),
        _ if listed.removed => "it was removed".to_owned(),
        _ => "it is no longer in the DNS answer".to_owned(),
    }
}

/// Options of an order: `?deadline=10m&rate=50/s`, `?to=50%25`, `?removed`, `?here`.
#[derive(Default)]
struct Wanted {
    deadline: Option<Duration>,
    rate: Option<Rate>,
    to: Option<String>,
    removed: bool,
    here: bool,
}

impl Wanted {
    fn of(query: Vec<(String, String)>) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        for (key, value) in query {
            match key.as_str() {
                "deadline" => {
                    let wrong = |e| format!("deadline: found `{value}`; expected {e}");
                    wanted.deadline = Some(value.parse::<Span>().map_err(wrong)?.0);
                }
                "rate" => {
                    let wrong = |e| format!("rate: found `{value}`; expected {e}");
                    wanted.rate = Some(value.parse().map_err(wrong)?);
                }
                "to" => {
                    let wrong = |e| format!("to: found `{value}`; expected {e}");
                    value.parse::<WeightOrder>().map_err(wrong)?;
                    wanted.to = Some(value);
                }
                "removed" => wanted.removed = matches!(value.as_str(), "" | "true"),
                "here" => wanted.here = matches!(value.as_str(), "" | "true"),
                _ => {
                    return Err(format!(
                        "unknown `{key}`; expected `deadline`, `rate`, `to`, `removed` or `here`"
                    ));
                }
            }
        }
        Ok(wanted)
    }

    /// Returns what the order `word` says about `node`; `None`: no such order, or a weight without `to`. A rate without
    /// a deadline means a deadline of zero.
    fn what(&self, word: &str, node: &Node) -> Option<What> {
        Some(match word {
            "up" => What::Up,
            "down" => What::Down,
            "drain" => {
                let after = self.deadline.or(self.rate.map(|_| Duration::ZERO));
                let millis = |after: Duration| u64::try_from(after.as_millis()).ok();
                let until = |after| Some(date().saturating_add(millis(after)?));
                What::Drain {
                    until: after.and_then(until),
                    rate: self.rate.map(|rate| rate.to_string()),
                }
            }
            "weight" => What::Weight {
                to: self.to.clone()?,
                of: node.weight_of_file(),
            },
            _ => return None,
        })
    }

    fn is_paced(&self) -> bool {
        self.deadline.is_some() || self.rate.is_some()
    }
}
