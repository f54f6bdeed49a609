//! Computes how uneven a pool is, and how many flows each node has too many.
//!
//! In: live flows and weights. Out: for each node its share, the most it may keep, and its excess. Pure.
//! Source: Lightstreamer clustering §5.

use pushgate_plugins::api::NodeId;

use crate::config::units::Rate;

/// Facts of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Identity.
    pub id: NodeId,
    /// Name in the configuration.
    pub name: String,
    /// Its share relative to the other nodes.
    pub weight: u32,
    /// Whether it takes flows: Up, with weight above zero. Other nodes do not count.
    pub takes: bool,
    /// Live flows.
    pub flows: usize,
    /// Most flows per second that the balancer gives it; `None`: no limit.
    pub intake: Option<Rate>,
}

/// How many flows a node should have.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Aim {
    /// Flows it would have in an even pool.
    pub share: f64,
    /// Flows it may keep.
    pub most: usize,
    /// Flows it has beyond `most`.
    pub excess: usize,
}

/// How a pool's flows should be spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// One aim per load, in the same order; zero for nodes that take no flows.
    pub aims: Vec<Aim>,
    /// Least number of flows to move.
    pub moves: usize,
    /// Largest ratio of flows to share. 1.0 is even; with equal weights it is max / mean.
    pub evenness: f64,
}

/// Plans so that no node has more than its share plus `tolerance` (0.05: 5 % more). `away` counts clients
/// that were closed and will come back.
pub fn plan(loads: &[Load], away: usize, tolerance: f64) -> Plan {
    let taking = || loads.iter().filter(|l| l.takes);
    let flows = (taking().map(|l| l.flows).sum::<usize>() + away) as f64;
    let weights = taking().map(|l| f64::from(l.weight)).sum::<f64>();
    let aim = |load: &Load| {
        if !load.takes {
            return Aim::default();
        }
        let share = flows * f64::from(load.weight) / weights;
        // A node may always keep its share rounded up: one flow on three nodes cannot be spread better.
        let most = share.ceil().max((share * (1.0 + tolerance)).floor()) as usize;
        Aim {
            share,
            most,
            excess: load.flows.saturating_sub(most),
        }
    };
    let aims: Vec<Aim> = loads.iter().map(aim).collect();
    let over = |(load, aim): (&Load, &Aim)| match aim.share {
        share if share > 0.0 => load.flows as f64 / share,
        _ => 1.0,
    };
    Plan {
        moves: aims.iter().map(|a| a.excess).sum(),
        evenness: loads.iter().zip(&aims).map(over).fold(1.0, f64::max),
        aims,
    }
}

/// Returns how many clients per second the nodes below their share accept; `None`: one has no limit. Closing
/// faster would send clients back to a full node.
pub fn intake(loads: &[Load], plan: &Plan) -> Option<Rate> {
    let below = |(load, aim): &(&Load, &Aim)| load.takes && (load.flows as f64) < aim.share;
    let takers = loads.iter().zip(&plan.aims).filter(below);
    let all = takers.map(|(load, _)| load.intake);
    all.reduce(|a, b| Some(a?.plus(b?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(all: &[(usize, u32)]) -> Vec<Load> {
        let one = |(i, (flows, weight)): (usize, &(usize, u32))| Load {
            id: NodeId(i as u64),
            name: format!("n{i}"),
            weight: *weight,
            takes: *weight > 0,
            flows: *flows,
            intake: None,
        };
        all.iter().enumerate().map(one).collect()
    }

    #[test]
    fn only_what_is_beyond_share_and_tolerance_moves() {
        type Case = (&'static [(usize, u32)], usize, f64, &'static [usize], f64);
        let cases: &[Case] = &[
            (&[], 0, 0.05, &[], 1.0),
            (&[(0, 1), (0, 1)], 0, 0.05, &[0, 0], 1.0),
            (&[(1, 1), (0, 1), (0, 1)], 0, 0.0, &[0, 0, 0], 3.0),
            (
                &[(5_000, 1), (5_000, 1), (0, 1)],
                0,
                0.05,
                &[1_500, 1_500, 0],
                1.5,
            ),
            (
                &[(5_000, 1), (5_000, 1), (0, 1)],
                0,
                0.0,
                &[1_666, 1_666, 0],
                1.5,
            ),
            (&[(105, 1), (95, 1)], 0, 0.05, &[0, 0], 1.05),
            (&[(106, 1), (94, 1)], 0, 0.05, &[1, 0], 1.06),
            // A node of half the weight has its share with half the flows.
            (&[(100, 2), (100, 1)], 0, 0.0, &[0, 33], 1.5),
            // Clients that are away count; otherwise each close would lower the share of all nodes.
            (&[(90, 1), (90, 1), (0, 1)], 120, 0.0, &[0, 0, 0], 1.0),
            // A node that takes no flows neither gives flows nor counts.
            (&[(500, 0), (60, 1), (40, 1)], 0, 0.05, &[0, 8, 0], 1.2),
        ];
        for (all, away, tolerance, excess, evenness) in cases {
            let plan = plan(&loads(all), *away, *tolerance);
            let found: Vec<usize> = plan.aims.iter().map(|a| a.excess).collect();
            assert_eq!(found, *excess, "{all:?}");
            assert!((plan.evenness - evenness).abs() < 1e-9, "{all:?}: {plan:?}");
            assert_eq!(plan.moves, excess.iter().sum::<usize>(), "{all:?}");
        }
    }

    #[test]
    fn nodes_below_their_share_set_the_pace() {
        let rates = |all: [Option<u64>; 3]| {
            let mut loads = loads(&[(90, 1), (30, 1), (0, 1)]);
            for (load, rate) in loads.iter_mut().zip(all) {
                load.intake = rate.map(Rate::a_second);
            }
            let plan = plan(&loads, 0, 0.05);
            intake(&loads, &plan).map(Rate::per_second)
        };
        assert_eq!(rates([None, None, None]), None);
        assert_eq!(
            rates([Some(1), None, Some(20)]),
            None,
            "the second takes any number"
        );
        assert_eq!(rates([Some(1), Some(30), Some(20)]), Some(50.0));
    }

    #[test]
    fn the_most_of_all_nodes_has_room_for_all_flows() {
        for total in 0..50_usize {
            for nodes in 1..6_u32 {
                let mut all: Vec<_> = (1..=nodes).map(|n| (0, n)).collect();
                all[0].0 = total;
                let plan = plan(&loads(&all), 0, 0.0);
                let room: usize = plan.aims.iter().map(|a| a.most).sum();
                assert!(room >= total, "{total} on {nodes}");
            }
        }
    }
}
