//! The report of a run: a sample for each second, the events of nodes, and the totals.

use std::fmt;

use serde::Serialize;

/// The load is even if the fullest node has at most this multiple of its pool's mean.
const EVEN: f64 = 1.05;

/// The result of a run. Times are seconds from the start.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The listener that the clients reach.
    pub listener: String,
    /// Number of clients.
    pub clients: usize,
    /// The run's seed.
    pub seed: u64,
    /// Names of the nodes, in the order of the samples' numbers.
    pub nodes: Vec<String>,
    /// Number of edges.
    pub edges: usize,
    /// Whether the edges share a store.
    pub store: bool,
    /// One sample for each second.
    pub seconds: Vec<Second>,
    /// Events of nodes and rebalances, in order.
    pub events: Vec<Event>,
    /// Failures, and when their clients had a flow again.
    pub failures: Vec<Failure>,
    /// Returns, and when the load was even again.
    pub returns: Vec<Return>,
    /// Rebalances, in the order they began.
    pub rebalances: Vec<Rebalance>,
    /// Sessions that did not stay on their node.
    pub moved: Moved,
    /// Flows refused because no node could take them.
    pub refused: u64,
    /// All flows that got a node.
    pub flows: u64,
    /// Load of the fullest node divided by its share, at the end; 1.0 is even.
    pub evenness: f64,
    #[serde(skip)]
    pub(super) step: usize,
}

/// State at the end of a second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Second {
    /// Live flows of each node.
    pub live: Vec<usize>,
    /// New flows of each node in this second.
    pub new: Vec<u64>,
    /// Flows refused in this second.
    pub refused: u64,
    /// Flows that wait for a node with room.
    pub waiting: usize,
}

/// An event of a node or a rebalance.
#[derive(Debug, Serialize)]
pub struct Event {
    /// When it happened.
    pub at: f64,
    /// The event as text.
    pub what: String,
}

/// A failure: a node died or hung.
#[derive(Debug, Default, Serialize)]
pub struct Failure {
    /// The node.
    pub node: String,
    /// When the node failed.
    pub at: f64,
    /// Clients that lost their flow.
    pub cut: usize,
    /// Clients among them that left for good before they had another flow.
    pub gone: usize,
    /// Seconds that each other client was without a flow; sorted at the end of the run.
    #[serde(skip)]
    pub(super) without: Vec<f64>,
    /// Seconds until half of the clients had a flow again.
    pub median: Option<f64>,
    /// Seconds until 99 % of the clients had a flow again.
    pub p99: Option<f64>,
    /// Seconds until all clients had a flow again; `None`: some have no flow at the end of the run.
    pub all: Option<f64>,
}

/// A node's return.
#[derive(Debug, Serialize)]
pub struct Return {
    /// The node.
    pub node: String,
    /// When the node took flows again.
    pub at: f64,
    /// Seconds until no node had more than 5 % above its share; `None`: not within the run.
    pub even_after: Option<f64>,
}

/// A rebalance, with its state at its own end or at the end of the run.
#[derive(Debug, Serialize)]
pub struct Rebalance {
    /// The pool.
    pub pool: String,
    /// `operator`, or `auto`.
    pub by: &'static str,
    /// When it began.
    pub at: f64,
    /// Its state, as the API names it.
    pub state: &'static str,
    /// How many seconds it took.
    pub seconds: f64,
    /// Clients that it planned to move at its beginning.
    pub due: usize,
    /// Clients that it moved: it closed their flow, or forgot the assignment of a client without a flow.
    pub moved: usize,
    /// Load of the fullest node divided by its share, at the end; 1.0 is even.
    pub evenness: f64,
}

/// Sessions that did not stay on their node.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Moved {
    /// Because the node failed.
    pub failed: u64,
    /// Because the node drains.
    pub drained: u64,
    /// Because a rebalance closed their flow.
    pub rebalanced: u64,
    /// Although the node was healthy: without stickiness, or because a rebalance forgot their assignment.
    pub unstuck: u64,
}

impl Report {
    /// Adds the sample of a second, and checks whether the load is even. `weights`: one for each node; 0
    /// if the node is not Up.
    pub(super) fn second(&mut self, second: Second, weights: &[u32]) {
        self.evenness = unevenness(&second.live, weights);
        let at = self.seconds.len() as f64 + 1.0;
        if is_even(&second.live, weights) {
            for back in self.returns.iter_mut().filter(|r| r.even_after.is_none()) {
                back.even_after = Some((at - back.at).max(0.0));
            }
        }
        self.seconds.push(second);
    }

    /// Computes the figures that need the whole run.
    pub(super) fn close(&mut self) {
        for failure in &mut self.failures {
            let without = &mut failure.without;
            without.sort_by(f64::total_cmp);
            let at = |share: f64| {
                let place = ((failure.cut - failure.gone) as f64 * share).ceil() as usize;
                without.get(place.saturating_sub(1)).copied()
            };
            (failure.median, failure.p99) = (at(0.5), at(0.99));
            failure.all = at(1.0);
        }
    }

    /// Returns the most new flows that a node got in one second, and that second.
    pub fn peak(&self, node: usize) -> (u64, usize) {
        let new = self.seconds.iter().enumerate();
        let new = new.map(|(t, s)| (s.new.get(node).copied().unwrap_or(0), t));
        new.max_by_key(|(n, t)| (*n, std::cmp::Reverse(*t)))
            .unwrap_or((0, 0))
    }
}

/// Whether the fullest node, by its weight, is close to the mean. A single node always is.
fn is_even(live: &[usize], weights: &[u32]) -> bool {
    let up = || live.iter().zip(weights).filter(|(_, w)| **w > 0);
    let flows: usize = up().map(|(live, _)| live).sum();
    let weight: f64 = up().map(|(_, w)| f64::from(*w)).sum();
    let mean = flows as f64 / weight;
    let most = up()
        .map(|(live, w)| *live as f64 / f64::from(*w))
        .fold(0.0, f64::max);
    most <= (mean * EVEN).max(mean + 1.0)
}

/// Returns the load of the fullest node divided by its share; 1.0 without flows.
fn unevenness(live: &[usize], weights: &[u32]) -> f64 {
    let up = || live.iter().zip(weights).filter(|(_, w)| **w > 0);
    let flows: usize = up().map(|(live, _)| live).sum();
    let weight: f64 = up().map(|(_, w)| f64::from(*w)).sum();
    let of = |(live, w): (&usize, &u32)| *live as f64 * weight / (f64::from(*w) * flows as f64);
    match flows {
        0 => 1.0,
        _ => up().map(of).fold(1.0, f64::max),
    }
}

/// Formats seconds as `1:02:03` or `2:03`.
fn clock(seconds: f64) -> String {
    let s = seconds as u64;
    match s / 3_600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

fn or_not(seconds: Option<f64>, unit: &str) -> String {
    seconds.map_or_else(
        || "not within the run".to_owned(),
        |s| format!("{s:.1} s{unit}"),
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "listener {}, {} clients, {} flows, seed {}\n",
            self.listener, self.clients, self.flows, self.seed
        )?;
        write!(f, "{:>8}", "time")?;
        for node in &self.nodes {
            write!(f, "  {node:>16}")?;
        }
        writeln!(f, "  {:>8}  {:>8}  {:>8}", "new/s", "waiting", "refused")?;
        let mut events = self.events.iter().peekable();
        for (t, part) in self.seconds.chunks(self.step.max(1)).enumerate() {
            let end = (t * self.step.max(1) + part.len()) as f64;
            while let Some(event) = events.next_if(|e| e.at < end) {
                writeln!(f, "{:>8}  {}", clock(event.at), event.what)?;
            }
            self.line(f, end, part)?;
        }
        self.totals(f)
    }
}

impl Report {
    fn line(&self, f: &mut fmt::Formatter<'_>, end: f64, part: &[Second]) -> fmt::Result {
        let Some(last) = part.last() else {
            return Ok(());
        };
        let all = last.live.iter().sum::<usize>().max(1) as f64;
        write!(f, "{:>8}", clock(end))?;
        for live in &last.live {
            write!(f, "  {live:>9} {:>5.1}%", *live as f64 * 100.0 / all)?;
        }
        let new: u64 = part.iter().flat_map(|s| &s.new).sum();
        let refused: u64 = part.iter().map(|s| s.refused).sum();
        let new = new as f64 / part.len() as f64;
        writeln!(f, "  {new:>8.1}  {:>8}  {refused:>8}", last.waiting)
    }

    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (i, node) in self.nodes.iter().enumerate() {
            let (most, at) = self.peak(i);
            writeln!(
                f,
                "peak      {node}: {most} new flows in one second, at {}",
                clock(at as f64)
            )?;
        }
        for x in &self.failures {
            let (node, at) = (&x.node, clock(x.at));
            writeln!(
                f,
                "failure   {node} at {at}: {} clients cut; a flow again: half after {}, 99 % after {}, all after {}",
                x.cut,
                or_not(x.median, ""),
                or_not(x.p99, ""),
                or_not(x.all, "")
            )?;
        }
        for x in &self.returns {
            let (node, at) = (&x.node, clock(x.at));
            writeln!(
                f,
                "return    {node} at {at}: even within 5 % after {}",
                or_not(x.even_after, "")
            )?;
        }
        for x in &self.rebalances {
            writeln!(
                f,
                "rebalance {} at {} ({}): {} after {:.1} s, {} clients moved, {} were due, evenness {:.3}",
                x.pool,
                clock(x.at),
                x.by,
                x.state,
                x.seconds,
                x.moved,
                x.due,
                x.evenness
            )?;
        }
        let moved = self.moved;
        writeln!(
            f,
            "moved     {} sessions: {} because their node failed, {} because it drains, {} by a rebalance, {} although it was healthy",
            moved.failed + moved.drained + moved.rebalanced + moved.unstuck,
            moved.failed,
            moved.drained,
            moved.rebalanced,
            moved.unstuck
        )?;
        if self.edges > 1 {
            let with = if self.store { "with" } else { "without" };
            writeln!(
                f,
                "edges     {} {with} a store: {} sessions lost at the wrong node, evenness {:.3} at the end",
                self.edges, moved.unstuck, self.evenness
            )?;
        }
        writeln!(f, "refused   {} flows", self.refused)
    }
}
