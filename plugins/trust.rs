//! Finds the client's address behind trusted senders, for `forwarded`, `sticky_ip` and `access`.
//!
//! In: the address that sent the head, and its `X-Forwarded-For`. Out: the client's address. The sender is
//! the flow's client, not its TCP peer. Behind a balancer that speaks the PROXY protocol the client wrote the
//! head, however much the edge trusts the balancer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::api::Flow;
use crate::unix;

/// `X-Forwarded-For`, in the case that nodes get.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Most entries of `X-Forwarded-For` that are read or passed on, counted from the last. A path with more
/// proxies is a loop or an attack (FAULTS D15: 1,000 entries).
pub const MAX_HOPS: usize = 50;

/// Networks whose forwarding headers are trusted; default none.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct Trust(Vec<Net>);

/// A network, or a single address: `10.0.0.0/8`, `10.0.0.7`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net(pub IpNet);

impl Trust {
    /// Returns whether no sender is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `ip` is a trusted sender; an IPv4-mapped address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|n| n.0.contains(&ip))
    }

    /// Like [`Trust::client`]; `None`: no sender is trusted.
    pub fn told(&self, flow: &Flow<'_>) -> Option<IpAddr> {
        (!self.is_empty()).then(|| self.client(flow))
    }

    /// Returns the client behind the trusted senders: the last entry of `X-Forwarded-For` that is not a
    /// trusted sender. If the header is missing, broken or longer than [`MAX_HOPS`], returns the last address
    /// that is certain.
    pub fn client(&self, flow: &Flow<'_>) -> IpAddr {
        let mut client = flow.client.ip().to_canonical();
        let Some(request) = flow.request.filter(|_| self.contains(client)) else {
            return client;
        };
        let lines = request.values(X_FORWARDED_FOR).rev();
        let hops = lines.flat_map(|line| line.rsplit(|b| *b == b','));
        for hop in hops.take(MAX_HOPS) {
            let Some(ip) = address(hop) else { break };
            client = ip;
            if !self.contains(ip) {
                break;
            }
        }
        client
    }
}

/// Parses an entry's address, with or without port: `192.0.2.7`, `192.0.2.7:51000`, `2001:db8::7`,
/// `[2001:db8::7]:51000`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let s = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = s.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
    bare.unwrap_or(s)
        .parse()
        .or_else(|_| s.parse::<SocketAddr>().map(|a| a.ip()))
        .ok()
        .map(|ip: IpAddr| ip.to_canonical())
}

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Net;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network or an address, such as `10.0.0.0/8`, `192.0.2.7`")
            }
            fn visit_str<E: Error>(self, s: &str) -> Result<Net, E> {
                if s == unix::SCHEME {
                    return Ok(Net(unix::network()));
                }
                s.parse::<IpNet>()
                    .or_else(|_| s.parse::<IpAddr>().map(IpNet::from))
                    .map(Net)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(s), &self))
            }
        }
        d.deserialize_str(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Facts, head_with};

    /// FAULTS D15: stickiness never follows an untrusted X-Forwarded-For.
    #[test]
    fn the_client_is_the_last_address_that_is_certain() {
        let trust: Trust = serde_yaml::from_str("[10.0.0.0/8, '2001:db8:1::/48']").expect("trust");
        let long = vec!["10.9.9.9"; 1000].join(", ");
        let hidden = format!("192.0.2.1, {long}");
        for (sender, lines, client, why) in [
            (
                "203.0.113.5:1",
                &["192.0.2.1"][..],
                "203.0.113.5",
                "untrusted sender",
            ),
            ("10.0.0.1:1", &[], "10.0.0.1", "no header"),
            ("10.0.0.1:1", &[""], "10.0.0.1", "empty header"),
            ("10.0.0.1:1", &["junk"], "10.0.0.1", "junk"),
            (
                "10.0.0.1:1",
                &["192.0.2.1, unknown"],
                "10.0.0.1",
                "unknown last",
            ),
            ("10.0.0.1:1", &["192.0.2.1"], "192.0.2.1", "one hop"),
            (
                "10.0.0.1:1",
                &["6.6.6.6, 192.0.2.1"],
                "192.0.2.1",
                "forged first entry",
            ),
            (
                "10.0.0.1:1",
                &["6.6.6.6", "192.0.2.1, 10.0.0.2"],
                "192.0.2.1",
                "two lines",
            ),
            ("10.0.0.1:1", &["192.0.2.1:5100"], "192.0.2.1", "with port"),
            (
                "10.0.0.1:1",
                &["[2001:db8::7]:5100"],
                "2001:db8::7",
                "IPv6 with port",
            ),
            (
                "10.0.0.1:1",
                &["[2001:db8::7]"],
                "2001:db8::7",
                "IPv6 in brackets",
            ),
            (
                "[::ffff:10.0.0.1]:1",
                &["::ffff:192.0.2.1"],
                "192.0.2.1",
                "mapped",
            ),
            (
                "10.0.0.1:1",
                &["10.0.0.2, 10.0.0.3"],
                "10.0.0.2",
                "all trusted",
            ),
            ("10.0.0.1:1", &[&hidden], "10.9.9.9", "beyond the limit"),
        ] {
            let lines: Vec<_> = lines.iter().map(|l| (X_FORWARDED_FOR, *l)).collect();
            let h = head_with("GET", "/", &lines);
            let facts = Facts::default().client(sender);
            let got = trust.client(&facts.flow(Some(&h)));
            assert_eq!(got, client.parse::<IpAddr>().expect("ip"), "{why}");
        }
    }
}
