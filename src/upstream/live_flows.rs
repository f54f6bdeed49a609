//! Lists the live flows of a node, each with the assignment that makes its client stick to the node.
//!
//! In: flows that begin and end. Out: flows that a rebalance may close, and flows whose assignment has
//! reached its age.
//! Source: Lightstreamer clustering §4, §5.1.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pushgate_plugins::api::{Forgotten, Mark, PoolId, Watch};

use super::live_flow::LiveFlow;
use crate::observe::end_reason::EndReason;

/// How a flow's client sticks to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stickiness {
    /// The pool from which its node was chosen.
    pub pool: PoolId,
    /// The mark by which a rebalance finds its assignment.
    pub mark: Mark,
}

/// A flow that a rebalance may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovableFlow {
    /// Number of the flow.
    pub flow: u64,
    /// Its assignment.
    pub mark: Mark,
}

struct Entry {
    flow: Arc<LiveFlow>,
    stickiness: Option<Stickiness>,
    ends: Option<Instant>,
}

/// The live flows of a node.
#[derive(Default)]
pub struct LiveFlows(Mutex<Flows>);

impl LiveFlows {
    /// Adds a flow.
    pub fn insert(&self, flow: &Arc<LiveFlow>, stickiness: Option<Stickiness>) {
        self.0.lock().insert(flow, stickiness);
    }

    /// Removes a flow.
    pub fn remove(&self, flow: u64) {
        self.0.lock().remove(flow);
    }

    /// Returns all flows.
    pub fn all(&self) -> Vec<Arc<LiveFlow>> {
        let flows = self.0.lock();
        flows.live.values().map(|e| e.flow.clone()).collect()
    }

    /// Returns up to `most` flows whose numbers follow `after`, the lowest first. Clones a page under the lock, so
    /// that a list of 20,000 flows never holds it for longer.
    pub fn page(&self, after: u64, most: usize) -> Vec<Arc<LiveFlow>> {
        // Allocated before the lock.
        let mut page = Vec::with_capacity(most);
        let flows = self.0.lock();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let next = flows.live.range(behind).take(most);
        page.extend(next.map(|(_, e)| e.flow.clone()));
        page
    }

    /// Returns the flows of `pool` that may move: all except those whose node is computed.
    ///
    /// Copies 48 bytes a flow under the lock and decides nothing there: 10,000 flows delay the data threads
    /// by less than a tenth of a millisecond.
    pub fn movable(&self, pool: PoolId) -> Vec<MovableFlow> {
        // Allocated here with some room to spare: otherwise the vector would grow under the lock.
        let count = self.0.lock().live.len();
        let mut all = Vec::with_capacity(count + 64);
        let flows = self.0.lock();
        let movable = flows.live.iter().filter_map(|(flow, e)| {
            let mark = e.stickiness.filter(|s| s.pool == pool)?.mark;
            Some(MovableFlow { flow: *flow, mark })
        });
        all.extend(movable);
        all
    }

    /// Gives a flow the mark of the session that its `watches` have learned, so that a rule finds both
    /// together. Returns whether they have learned one. Until then the flow carries a mark of its own,
    /// because the id of a session is not known before the session begins.
    pub fn learned(&self, flow: u64, watches: &[Box<dyn Watch>]) -> bool {
        let mark = watches.iter().find_map(|w| w.mark());
        if let Some(mark) = mark {
            self.0.lock().mark(flow, mark);
        }
        mark.is_some()
    }

    /// Closes a flow so that its client comes back; returns whether it did.
    pub fn close(&self, flow: u64, why: EndReason) -> bool {
        let flow = self.0.lock().live.get(&flow).map(|e| e.flow.clone());
        flow.is_some_and(|f| f.close(why))
    }

    /// Counts the live flows that a client brought here by the assignment with this mark, which it carries
    /// itself (a token).
    pub fn of_mark(&self, id: u64) -> usize {
        self.0.lock().by_mark.get(&id).map_or(0, |n| *n as usize)
    }

    /// Counts the live flows that are not among `leaving`, all at one moment: counted one after the other, flows that
    /// end meanwhile would be counted as live, or as leaving twice.
    pub fn count_without(&self, leaving: &[u64]) -> usize {
        let flows = self.0.lock();
        let leave = leaving.iter().filter(|f| flows.live.contains_key(f));
        flows.live.len() - leave.count()
    }

    /// Whether `flow` is live here.
    pub fn has(&self, flow: u64) -> bool {
        self.0.lock().live.contains_key(&flow)
    }

    /// Cuts the flows whose assignment has reached its age, if the configuration asks for it.
    pub fn cut_expired(&self, now: Instant) {
        loop {
            // One lock for each flow: no flow is woken under it.
            let Some(flow) = self.0.lock().next_due(now) else {
                return;
            };
            flow.close(EndReason::Expired);
        }
    }
}

/// Live flows by number.
#[derive(Default)]
struct Flows {
    /// Ordered, so that a list of all flows can be read in pages. Numbers grow, so a flow enters at the end.
    live: BTreeMap<u64, Entry>,
    /// When flows are cut for age, the next one first. No flow has a timer of its own.
    ends: BTreeSet<(Instant, u64)>,
    /// Number of flows by the mark of their token.
    by_mark: HashMap<u64, u32>,
}

impl Flows {
    fn insert(&mut self, flow: &Arc<LiveFlow>, stickiness: Option<Stickiness>) {
        let cut_after = stickiness.and_then(|s| s.mark.cut_after);
        let ends = cut_after.and_then(|left| Instant::now().checked_add(left));
        if let Some(at) = ends {
            self.ends.insert((at, flow.id));
        }
        if let Some(id) = token(stickiness) {
            *self.by_mark.entry(id).or_default() += 1;
        }
        let flow = flow.clone();
        self.live.insert(
            flow.id,
            Entry {
                flow,
                stickiness,
                ends,
            },
        );
    }

    fn remove(&mut self, flow: u64) {
        let Some(entry) = self.live.remove(&flow) else {
            return;
        };
        if let Some(at) = entry.ends {
            self.ends.remove(&(at, flow));
        }
        if let Some(id) = token(entry.stickiness)
            && let Some(count) = self.by_mark.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                self.by_mark.remove(&id);
            }
        }
    }

    /// Gives a flow another mark. A token's mark stays: only its rule forgets a token.
    fn mark(&mut self, flow: u64, mark: Mark) {
        let Some(Entry {
            flow, stickiness, ..
        }) = self.live.get(&flow)
        else {
            return;
        };
        if let Some(stickiness) = stickiness.filter(|s| s.mark.by == Forgotten::Name) {
            let flow = flow.clone();
            self.remove(flow.id);
            self.insert(&flow, Some(Stickiness { mark, ..stickiness }));
        }
    }

    fn next_due(&mut self, now: Instant) -> Option<Arc<LiveFlow>> {
        let next = self.ends.first().filter(|(at, _)| *at <= now).copied()?;
        self.ends.remove(&next);
        self.live.get(&next.1).map(|e| e.flow.clone())
    }
}

/// Returns the mark of the token by which a flow sticks.
fn token(stickiness: Option<Stickiness>) -> Option<u64> {
    let mark = stickiness?.mark;
    (mark.by == Forgotten::Rule).then_some(mark.id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pushgate_plugins::api::Forgotten;

    use super::*;

    fn stickiness(cut_after: Option<Duration>) -> Option<Stickiness> {
        let mark = Mark {
            id: 1,
            learned: 2,
            by: Forgotten::Rule,
            cut_after,
        };
        let pool = PoolId::of("p");
        Some(Stickiness { pool, mark })
    }

    #[test]
    fn only_flows_with_an_end_are_due_and_each_once() {
        let mut flows = Flows::default();
        let hour = Duration::from_secs(3600);
        let [long, short, endless, gone] = [(); 4].map(|()| LiveFlow::new());
        flows.insert(&long, stickiness(Some(2 * hour)));
        flows.insert(&short, stickiness(Some(hour)));
        flows.insert(&endless, stickiness(None));
        flows.insert(&gone, stickiness(Some(hour)));
        flows.remove(gone.id);
        let now = Instant::now();
        assert!(flows.next_due(now).is_none());
        let due = flows.next_due(now + hour + hour / 2).map(|f| f.id);
        assert_eq!(due, Some(short.id));
        assert!(flows.next_due(now + hour + hour / 2).is_none());
        assert_eq!(flows.by_mark.get(&1), Some(&3), "of one token");
        flows.remove(long.id);
        assert!(flows.ends.is_empty() && flows.next_due(now + 9 * hour).is_none());
        assert_eq!(flows.live.len(), 2);
        flows.remove(short.id);
        flows.remove(endless.id);
        assert!(flows.by_mark.is_empty());
    }

    /// A flow gets the mark of its session late, and with it maybe an age. Fails if the old age stays.
    #[test]
    fn a_flow_takes_the_mark_of_its_session_unless_it_has_a_token() {
        let mut flows = Flows::default();
        let hour = Duration::from_secs(3600);
        let session = Mark {
            id: 7,
            learned: 8,
            by: Forgotten::Name,
            cut_after: Some(hour),
        };
        let [plain, token] = [(); 2].map(|()| LiveFlow::new());
        let own = Mark::of_flow(1, 2);
        let pool = PoolId::of("p");
        flows.insert(&plain, Some(Stickiness { pool, mark: own }));
        flows.insert(&token, stickiness(None));
        for flow in [plain.id, token.id, 0] {
            flows.mark(flow, session);
        }
        let of = |id| flows.live[&id].stickiness.map(|s| (s.pool, s.mark.id));
        assert_eq!(
            (of(plain.id), of(token.id)),
            (Some((pool, 7)), Some((pool, 1)))
        );
        assert_eq!(flows.ends.len(), 1);
        flows.mark(plain.id, own);
        assert!(flows.ends.is_empty() && flows.live.len() == 2);
    }

    /// Aim: pages list each flow once, whatever comes and goes between them. Fails if a flow that ended moves the
    /// others to another page.
    #[test]
    fn pages_list_each_flow_once() {
        let flows = LiveFlows::default();
        let all = [(); 7].map(|()| LiveFlow::new());
        all.iter().for_each(|flow| flows.insert(flow, None));
        let ids = |page: Vec<Arc<LiveFlow>>| page.iter().map(|f| f.id).collect::<Vec<_>>();
        assert_eq!(ids(flows.page(0, 3)), [all[0].id, all[1].id, all[2].id]);
        flows.remove(all[0].id);
        flows.remove(all[2].id);
        assert_eq!(
            ids(flows.page(all[2].id, 3)),
            [all[3].id, all[4].id, all[5].id]
        );
        assert_eq!(ids(flows.page(all[5].id, 3)), [all[6].id]);
        assert!(flows.page(all[6].id, 3).is_empty());
    }

    #[test]
    fn a_flow_is_closed_once_and_only_when_its_answer_has_begun() {
        let flow = LiveFlow::new();
        assert!(!flow.close(EndReason::Rebalanced), "not begun");
        flow.begin();
        assert!(flow.close(EndReason::Rebalanced) && !flow.close(EndReason::Expired));
        assert_eq!(flow.closed(), Some(EndReason::Rebalanced));
    }
}
