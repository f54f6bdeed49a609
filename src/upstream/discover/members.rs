//! Tracks which members of a pool are in its DNS answer, and which were.
//!
//! In: answers, the live flows of members that left. Out: members, and whether anything changed. Pure: time
//! is an argument.
//! Source: FAULTS D66; Lightstreamer clustering §5 (a server that goes keeps its sessions).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{MAX_NODES, Target};

/// The members of one pool.
#[derive(Clone, Debug, Default)]
pub struct Members(BTreeMap<SocketAddr, Member>);

/// One member.
#[derive(Clone, Debug)]
pub struct Member {
    /// The target, as in the last answer that contained it.
    pub target: Target,
    /// Since when the member is out of the answer and without a flow; `None`: it is in the answer.
    empty: Option<Instant>,
}

impl Member {
    /// Whether the member is out of the answer.
    pub fn is_leaving(&self) -> bool {
        self.empty.is_some()
    }
}

impl Members {
    /// Returns all members, sorted by address.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }

    /// Takes over an answer: a member that is not in it is leaving. At most [`MAX_NODES`] members may be
    /// leaving; beyond that, those without a flow for longest are removed first.
    pub fn answered(&mut self, targets: &[Target], now: Instant) {
        for (address, member) in &mut self.0 {
            let is_in = targets.binary_search_by_key(address, |t| t.address).is_ok();
            if !is_in && member.empty.is_none() {
                member.empty = Some(now);
            }
        }
        for target in targets {
            let member = Member {
                target: target.clone(),
                empty: None,
            };
            self.0.insert(target.address, member);
        }
        let mut leaving: Vec<_> = self
            .0
            .iter()
            .filter_map(|(a, m)| Some((m.empty?, *a)))
            .collect();
        leaving.sort_unstable();
        for (_, address) in leaving.iter().rev().skip(MAX_NODES) {
            self.0.remove(address);
        }
    }

    /// Removes members that left and had no flow for `linger`; returns whether there were any.
    pub fn sweep(
        &mut self,
        now: Instant,
        linger: Duration,
        live: impl Fn(SocketAddr) -> usize,
    ) -> bool {
        let before = self.0.len();
        self.0.retain(|address, member| {
            let Some(empty) = &mut member.empty else {
                return true;
            };
            if live(*address) > 0 {
                *empty = now;
            }
            now.saturating_duration_since(*empty) < linger
        });
        self.0.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(60);

    fn target(n: u32) -> Target {
        Target {
            address: (std::net::Ipv4Addr::from(0x0a00_0000 + n), 80).into(),
            weight: 1,
            host: "push.internal".into(),
        }
    }

    fn told(members: &Members) -> Vec<(u8, bool)> {
        let last = |m: &Member| match m.target.address {
            SocketAddr::V4(a) => a.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        members.all().map(|m| (last(m), m.is_leaving())).collect()
    }

    #[test]
    fn a_leaving_member_stays_until_empty_for_linger() {
        let mut members = Members::default();
        let start = Instant::now();
        let s = |n| start + Duration::from_secs(n);
        members.answered(&[target(1), target(2)], s(0));
        assert_eq!(told(&members), [(1, false), (2, false)]);
        members.answered(&[target(2)], s(10));
        assert_eq!(told(&members), [(1, true), (2, false)]);
        assert!(!members.sweep(s(60), LINGER, |_| 1), "it has a flow");
        assert!(!members.sweep(s(119), LINGER, |_| 0), "empty for 59 s");
        // Another answer without it does not restart the time.
        members.answered(&[target(2)], s(119));
        assert!(members.sweep(s(120), LINGER, |_| 0));
        assert_eq!(told(&members), [(2, false)]);
    }

    #[test]
    fn a_member_that_comes_back_is_not_leaving() {
        let mut members = Members::default();
        let now = Instant::now();
        members.answered(&[target(1), target(2)], now);
        members.answered(&[target(1)], now);
        members.answered(&[target(1), target(2)], now);
        assert_eq!(told(&members), [(1, false), (2, false)]);
        assert!(!members.sweep(now + LINGER * 2, LINGER, |_| 0));
    }

    #[test]
    fn leaving_members_are_bounded() {
        let mut members = Members::default();
        let start = Instant::now();
        for round in 0..5u32 {
            let from = round * 500;
            let targets: Vec<Target> = (from..from + 500).map(target).collect();
            members.answered(&targets, start + Duration::from_secs(round.into()));
        }
        let leaving = members.all().filter(|m| m.is_leaving()).count();
        assert_eq!(leaving, MAX_NODES);
        let first = members.all().next().map(|m| m.target.clone());
        assert_eq!(first, Some(target(1_000)), "the first to leave went first");
    }
}
