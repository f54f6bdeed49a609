//! Selects the nodes of an answer.
//!
//! In: addresses, SRV records. Out: targets, validated, weighted, sorted by address, limited. Pure.
//! Source: FAULTS D66 (spoofed); RFC 2782 (priority, weight, target `.`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pushgate_plugins::trust::Trust;

use super::{MAX_NODES, Target};

/// Largest weight of a node.
const MAX_WEIGHT: u32 = 1_000;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The lowest priority is used first.
    pub priority: u16,
    /// Share against records of the same priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// The host; empty: the service does not exist.
    pub host: String,
}

/// Which addresses a node may have.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Allowed networks; empty: every address except this machine's own.
    pub allow: &'a Trust,
    /// Whether the name that was asked for is this machine's own.
    pub localhost: bool,
}

impl Rules<'_> {
    /// Whether a node may have this address. An answer may be forged: an address of this machine would open
    /// services that trust it, such as the admin endpoint.
    pub fn allow(self, ip: IpAddr, port: u16) -> bool {
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let never = ip.is_unspecified() || ip.is_multicast() || link_local || port == 0;
        let allowed = match self.allow.is_empty() {
            true => !ip.is_loopback() || self.localhost,
            false => self.allow.contains(ip),
        };
        allowed && !never
    }
}

/// Returns the records of the lowest priority that name a host.
pub fn first_of(services: Vec<Service>) -> Vec<Service> {
    let usable = services.into_iter().filter(|s| !s.host.is_empty());
    let usable: Vec<Service> = usable.collect();
    let lowest = usable.iter().map(|s| s.priority).min();
    let first = usable.into_iter().filter(|s| Some(s.priority) == lowest);
    first.collect()
}

/// Scales the weight of a record to a node's weight, where `most` is the largest weight of its siblings. RFC
/// 2782 gives 0 "a very small chance", and its largest weight is 65,535.
pub fn weight(own: u16, most: u16) -> u32 {
    let (own, most) = (u32::from(own), u32::from(most));
    let scaled = match most > MAX_WEIGHT {
        true => own * MAX_WEIGHT / most,
        false => own,
    };
    scaled.max(1)
}

/// Returns the targets that `rules` allow, each address once, sorted, and how many were left out.
pub fn targets(all: impl IntoIterator<Item = Target>, rules: Rules<'_>) -> (Vec<Target>, usize) {
    let (mut by_address, mut left_out) = (BTreeMap::new(), 0);
    for target in all {
        let (ip, port) = (target.address.ip().to_canonical(), target.address.port());
        if rules.allow(ip, port) {
            let address = SocketAddr::new(ip, port);
            let one = by_address.entry(address).or_insert(Target {
                address,
                ..target.clone()
            });
            // Duplicates in another order must give the same answer.
            if (target.weight, &target.host) < (one.weight, &one.host) {
                (one.weight, one.host) = (target.weight, target.host);
            }
        } else {
            left_out += 1;
        }
    }
    left_out += by_address.len().saturating_sub(MAX_NODES);
    (by_address.into_values().take(MAX_NODES).collect(), left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target {
            address: address.parse().expect("an address"),
            weight: 1,
            host: "push.internal".into(),
        }
    }

    /// FAULTS D66, "spoofed". Fails if an address that no node can have is accepted.
    #[test]
    fn addresses_that_no_node_can_have_are_left_out() {
        let none = Trust::default();
        let some: Trust = serde_yaml::from_str("[10.0.0.0/8, 127.0.0.0/8, '::1']").expect("nets");
        for (address, open, named) in [
            ("10.0.0.1:80", true, true),
            ("192.0.2.1:80", true, false),
            ("[2001:db8::1]:80", true, false),
            ("127.0.0.1:80", false, true),
            ("[::1]:80", false, true),
            ("[::ffff:127.0.0.1]:80", false, true),
            ("0.0.0.0:80", false, false),
            ("[::]:80", false, false),
            ("[::ffff:0.0.0.0]:80", false, false),
            ("224.0.0.1:80", false, false),
            ("[ff02::1]:80", false, false),
            ("255.255.255.255:80", false, false),
            ("169.254.169.254:80", false, false),
            ("[fe80::1]:80", false, false),
            ("10.0.0.1:0", false, false),
        ] {
            for (allow, expected) in [(&none, open), (&some, named)] {
                let rules = Rules {
                    allow,
                    localhost: false,
                };
                let (kept, left_out) = targets([target(address)], rules);
                assert_eq!(kept.len(), usize::from(expected), "{address} {allow:?}");
                assert_eq!(left_out, usize::from(!expected), "{address}");
            }
        }
        let rules = Rules {
            allow: &none,
            localhost: true,
        };
        assert!(rules.allow([127, 0, 0, 1].into(), 80), "it was asked for");
    }

    #[test]
    fn order_and_twins_change_nothing() {
        let allow = Trust::default();
        let rules = Rules {
            allow: &allow,
            localhost: false,
        };
        let one = target("10.0.0.1:80");
        let twin = Target {
            weight: 7,
            host: "a".into(),
            ..one.clone()
        };
        let two = target("10.0.0.2:80");
        let there = targets([one.clone(), two.clone(), twin.clone()], rules);
        assert_eq!(there, targets([twin, two.clone(), one.clone()], rules));
        assert_eq!(there.0, [one, two]);
    }

    #[test]
    fn more_than_a_thousand_are_bounded_by_address() {
        let allow = Trust::default();
        let rules = Rules {
            allow: &allow,
            localhost: false,
        };
        let all = (0..1_200u32).rev().map(|n| Target {
            address: (std::net::Ipv4Addr::from(0x0a00_0001 + n), 80).into(),
            ..target("10.0.0.1:80")
        });
        let (kept, left_out) = targets(all, rules);
        assert_eq!((kept.len(), left_out), (MAX_NODES, 200));
        assert_eq!(kept[0].address, target("10.0.0.1:80").address);
    }

    #[test]
    fn the_lowest_priority_goes_first() {
        let service = |priority, host: &str| Service {
            priority,
            weight: 1,
            port: 80,
            host: host.into(),
        };
        let all = vec![
            service(10, "b"),
            service(0, ""),
            service(5, "a"),
            service(5, "c"),
        ];
        let hosts: Vec<String> = first_of(all).into_iter().map(|s| s.host).collect();
        assert_eq!(hosts, ["a", "c"], "the target `.` is no host");
    }

    #[test]
    fn weights_are_scaled() {
        for (own, most, expected) in [
            (0, 0, 1),
            (0, 10, 1),
            (10, 10, 10),
            (1_000, 1_000, 1_000),
            (65_535, 65_535, 1_000),
            (6_553, 65_535, 99),
            (1, 65_535, 1),
        ] {
            assert_eq!(weight(own, most), expected, "{own} of {most}");
        }
    }
}
