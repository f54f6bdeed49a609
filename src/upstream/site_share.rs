//! How much of a node's limits this edge may use while other edges of the site use the rest.
//!
//! In: the limits, the flows here, what the other edges have and may have, the number of edges. Out: the most flows
//! here, and the divisor of the rates. Pure. Source: issue 16 §4.
//!
//! An edge publishes its ceiling beside its flows, and the others count the larger of the two. So an edge that was
//! promised room has it, although nobody sees its new flows for a second.

/// The part of a node's limits that this edge may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteShare {
    /// Number of live edges, this one included; at least 1. `admit_rate` and `slow_start` are divided by it.
    pub edges: usize,
    /// Most flows here by `max_flows`; `None`: the limit itself.
    pub most: Option<usize>,
    /// Most flows here by `max_flows_hard`; `None`: the limit itself.
    pub most_hard: Option<usize>,
}

impl SiteShare {
    /// The share of an edge that is no part of a site: everything.
    pub const ALONE: SiteShare = SiteShare {
        edges: 1,
        most: None,
        most_hard: None,
    };
}

/// Returns the most flows that this edge may have at a node with `limit`: those it has (`here`), and its part of the
/// room that is left, at least one. `promised` counts what the other edges have or may have.
///
/// `edges` edges that do this at the same moment exceed the limit by at most `edges - 1`, where less room is left
/// than there are edges. Flows that are stuck to the node come on top, as they do at one edge.
pub fn ceiling(limit: usize, here: usize, promised: usize, edges: usize) -> usize {
    let room = limit.saturating_sub(promised).saturating_sub(here);
    match room {
        0 => limit.saturating_sub(promised),
        room => here + (room / edges.max(1)).max(1),
    }
}

/// Returns the ceiling of an edge that knows only the number of edges: an even part of the limit, at least one.
pub fn even(limit: usize, edges: usize) -> usize {
    (limit / edges.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_what_is_here_and_a_part_of_the_room() {
        for (limit, here, promised, edges, expected, name) in [
            (100, 0, 0, 1, 100, "alone"),
            (100, 0, 0, 2, 50, "two empty edges"),
            (100, 50, 50, 2, 50, "no room"),
            (
                100,
                60,
                60,
                2,
                40,
                "above the limit: the room of ended flows is not filled again",
            ),
            (100, 0, 120, 2, 0, "the others have it all"),
            (100, 49, 50, 3, 50, "the last place"),
            (100, 10, 30, 3, 30, "a third of 60"),
        ] {
            assert_eq!(ceiling(limit, here, promised, edges), expected, "{name}");
        }
        assert_eq!((even(100, 3), even(2, 3)), (33, 1));
    }

    /// Aim: edges that fill a node as fast as they may, each by what the others said up to a second ago, stay within
    /// the stated bound, and a single busy edge gets nearly all of the limit. Fails if an edge counts only the others'
    /// flows and not what they were promised.
    #[test]
    fn edges_together_stay_within_the_bound() {
        for (edges, limit, busy) in [(2, 100, 2), (3, 100, 3), (3, 1000, 1), (5, 7, 5)] {
            let (mut flows, mut ceilings) = (vec![0; edges], vec![0; edges]);
            let mut worst = 0;
            // Staggered: one edge at a time looks, says its ceiling, and fills it at once.
            for turn in 0..edges * 40 {
                let at = turn % edges;
                let others = (0..edges).filter(|e| *e != at);
                let promised = others.map(|e| usize::max(flows[e], ceilings[e])).sum();
                ceilings[at] = ceiling(limit, flows[at], promised, edges);
                if at < busy {
                    flows[at] = flows[at].max(ceilings[at]);
                }
                worst = worst.max(flows.iter().sum::<usize>());
            }
            assert!(worst < limit + edges, "{edges} edges: {worst} of {limit}");
            let all: usize = flows.iter().sum();
            assert!(all * 100 >= limit * 95, "{edges} edges: {all} of {limit}");
            // All at the same moment, by what was said a moment before.
            let (mut flows, mut ceilings) = (vec![0; edges], vec![0; edges]);
            for _ in 0..40 {
                let said: Vec<usize> = (0..edges)
                    .map(|e| usize::max(flows[e], ceilings[e]))
                    .collect();
                let all: usize = said.iter().sum();
                for at in 0..edges {
                    ceilings[at] = ceiling(limit, flows[at], all - said[at], edges);
                }
                for at in 0..busy {
                    flows[at] = flows[at].max(ceilings[at]);
                }
                let all: usize = flows.iter().sum();
                assert!(
                    all < limit + edges,
                    "{edges} edges at once: {all} of {limit}"
                );
            }
        }
    }
}
