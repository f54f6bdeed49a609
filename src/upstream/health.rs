//! Checks each node in its own loop, so that a slow check of one node delays no other.
//!
//! In: the node's `health`, its passive health counters. The agent, if it has one, is asked beside them. Out: verdicts for [`Node::judged`]. The first check
//! decides the initial state.
//! A check begins each interval even if earlier ones still run, up to the larger of `rise` and `fall` at once. So a
//! node that hangs is Down after `interval` × `fall` + `timeout`. A failed flow asks for a check at once. A check
//! that this machine could not make does not count.
//! Source: Lightstreamer clustering §5 (fail over); Diffusion load balancers, "TCP retransmission timeout".

pub mod agent;
pub mod probe;
pub mod tracker;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use self::agent::AgentCheck;
use self::probe::{Probe, ProbeError};
use self::tracker::HealthTracker;
use super::Node;
use super::node_status::{CheckResult, LastCheck};
use crate::config::Health;
use crate::observe::metrics;

/// The check loop of one node.
pub struct Checker {
    node: Arc<Node>,
    probe: Arc<Probe>,
    agent: Option<AgentCheck>,
    conf: Health,
    /// No check is configured: the node is checked only from a failed flow on, until it is Up for certain.
    on_suspicion_only: bool,
}

/// Shortest time between two checks that failed flows ask for: a storm of failures must not become a storm of
/// checks.
const LEAST_GAP: Duration = Duration::from_millis(10);

impl Checker {
    /// Prepares the checks of a node; without `conf`, a TCP check after a failed flow.
    pub fn new(node: Arc<Node>, conf: Option<&Health>) -> Self {
        let on_suspicion_only = conf.is_none();
        let conf = conf.cloned().unwrap_or_else(Health::tcp_default);
        Checker {
            probe: Arc::new(Probe::new(node.clone(), &conf)),
            agent: conf
                .agent
                .as_ref()
                .map(|agent| AgentCheck::new(node.clone(), agent)),
            node,
            conf,
            on_suspicion_only,
        }
    }

    /// Makes the first check, and asks the agent, where they are configured; their verdicts decide the initial state.
    pub async fn first(&self) {
        let agent = async {
            if let Some(agent) = &self.agent {
                agent.once().await;
            }
        };
        tokio::join!(self.first_check(), agent);
    }

    async fn first_check(&self) {
        if !self.on_suspicion_only {
            let (probe, node) = (self.probe.clone(), self.node.clone());
            let outcome = one(probe, node).await;
            if !matches!(outcome, Err(ProbeError::Short(_))) {
                self.node.judged(outcome.is_ok(), &told(&outcome));
            }
        }
    }

    /// Checks, and asks the agent, until the task is dropped.
    pub async fn run(self) {
        match &self.agent {
            Some(agent) => {
                tokio::join!(self.checks(), agent.run());
            }
            None => {
                self.node.forget_agent();
                self.checks().await;
            }
        }
    }

    async fn checks(&self) {
        let healthy = self.node.is_healthy();
        let now = Instant::now().into_std();
        let mut tracker =
            HealthTracker::new(&self.conf, healthy, self.node.passive_health.traffic(), now);
        self.node.passive_health.set_counts(
            self.conf
                .passive
                .as_ref()
                .is_some_and(|p| p.errors.is_some()),
        );
        let mut running = JoinSet::new();
        let mut last = Instant::now();
        let mut due = last + self.period(&tracker);
        let mut asked = false;
        loop {
            let wanted =
                asked || !self.on_suspicion_only || !tracker.is_healthy() || tracker.is_changing();
            // With so many checks running, their outcomes alone decide.
            let room = running.len() < self.conf.rise.max(self.conf.fall) as usize;
            tokio::select! {
                biased;
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    let was = tracker.is_changing();
                    // A check that panicked counts as failed.
                    let outcome = ended.unwrap_or_else(|e| Err(ProbeError::Node(e.to_string())));
                    self.count(&mut tracker, &outcome);
                    if !was && tracker.is_changing() {
                        due = due.min(last + self.period(&tracker));
                    }
                }
                () = tokio::time::sleep_until(due), if wanted && room => {
                    running.spawn(one(self.probe.clone(), self.node.clone()));
                    asked = false;
                    last = Instant::now();
                    due = last + self.period(&tracker);
                }
                () = self.node.passive_health.suspected() => {
                    asked = true;
                    due = due.min((last + LEAST_GAP).max(Instant::now()));
                    if self.node.passive_health.take_pardon() {
                        tracker.forgive();
                        self.node.status.holds(None);
                        self.node.passive_health.forget_failures();
                    }
                }
            }
            self.look_at_traffic(&mut tracker);
        }
    }

    fn count(&self, tracker: &mut HealthTracker, outcome: &Result<(), ProbeError>) {
        if matches!(outcome, Err(ProbeError::Short(_))) {
            return;
        }
        let now = Instant::now().into_std();
        if tracker.checked(outcome.is_ok(), now) {
            self.turned(tracker, &told(outcome));
        }
    }

    fn look_at_traffic(&self, tracker: &mut HealthTracker) {
        let now = Instant::now().into_std();
        if let Some(cause) = tracker.observe(self.node.passive_health.traffic(), now) {
            self.turned(tracker, &cause);
        }
    }

    fn turned(&self, tracker: &HealthTracker, cause: &str) {
        // Failures of flows before the turn are no evidence against the node's new state.
        self.node.passive_health.forget_failures();
        let now = Instant::now().into_std();
        let held = tracker.held(now);
        // Set first: whoever sees the node Down also sees for how long.
        self.node
            .status
            .holds((!held.is_zero()).then(|| now + held));
        if held.is_zero() {
            self.node.judged(tracker.is_healthy(), cause);
        } else {
            let falls = tracker.falls();
            let cause = format!("{cause}; fall {falls} in a row, held Down for {held:.1?}");
            self.node.judged(tracker.is_healthy(), &cause);
        }
    }

    /// Returns the time from the start of one check to the start of the next.
    fn period(&self, tracker: &HealthTracker) -> Duration {
        let interval = self.conf.interval.0;
        let fast = self.conf.fast_interval.map_or(interval / 4, |s| s.0);
        // Jitter: the checks of many nodes and many edges must not run in step.
        let slow = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let held = tracker.held(Instant::now().into_std());
        match tracker.is_changing() {
            // Before its hold ends the node cannot turn; after it one check may be enough.
            true if !held.is_zero() => slow.min(held.max(fast)),
            true => fast,
            false => slow,
        }
    }
}

fn told(outcome: &Result<(), ProbeError>) -> String {
    match outcome {
        Ok(()) => "checks are good".to_owned(),
        Err(why) => format!("check: {why}"),
    }
}

/// Makes one check, counts it, and reports a shortage of this machine.
async fn one(probe: Arc<Probe>, node: Arc<Node>) -> Result<(), ProbeError> {
    let started = Instant::now();
    let outcome = probe.once().await;
    let result = match &outcome {
        Ok(()) => CheckResult::Pass,
        Err(ProbeError::Node(_)) => CheckResult::Fail,
        Err(ProbeError::Short(shortage)) => {
            shortage.tell(&node);
            CheckResult::Error
        }
    };
    node.status.was_checked(LastCheck {
        result,
        said: told(&outcome),
        at: Instant::now().into_std(),
        took: started.elapsed(),
    });
    let m = metrics::get();
    m.checks
        .with_label_values(&[node.name.as_str(), result.as_str()])
        .inc();
    m.old_checks
        .with_label_values(&[node.name.as_str(), result.old_str()])
        .inc();
    m.check_seconds
        .with_label_values(&[&node.name])
        .observe(started.elapsed().as_secs_f64());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, OnDown};

    /// Fails without the jitter: the checks of all nodes and edges that began together would stay in step.
    #[test]
    fn checks_do_not_march_in_step() {
        let conf = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
        let node = Node::new("n", &conf, OnDown::Evict, None);
        let mut conf = Health::tcp_default();
        conf.interval = config::units::Span(Duration::from_secs(10));
        let checker = Checker::new(node.clone(), Some(&conf));
        let now = Instant::now().into_std();
        let tracker = HealthTracker::new(&conf, true, node.passive_health.traffic(), now);
        let periods: Vec<_> = (0..1000)
            .map(|_| checker.period(&tracker).as_secs_f64())
            .collect();
        assert!(periods.iter().all(|s| (9.0..=11.0).contains(s)));
        for tenth in 0..10 {
            let from = 9.0 + 0.2 * f64::from(tenth);
            let within = periods.iter().filter(|s| (from..from + 0.2).contains(*s));
            // About 100 of 1,000; by chance between 60 and 140 except in one run of 10,000.
            assert!(within.count() > 50, "from {from} s on");
        }
    }
}
