//! Names who fills a table with entries.
//!
//! In: a client's address. Out: the source whose share of the table an entry takes.

use std::net::IpAddr;

/// Leading bits of the IPv6 network that a provider gives to one client at least (RFC 6177).
pub const OWNED_PREFIX: u8 = 64;

/// The address to which an entry is charged: the client's. Of IPv6 the /64 counts, because a client owns at least
/// that. Of IPv4 the address counts: each one that sends a request has answered a handshake, so a network of
/// 256 addresses fills at most 256 shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub(super) u64);

impl Source {
    /// The source of an entry that is filed under the source itself, so that there is one entry of it.
    pub const OWN: Source = Source(0);

    /// Returns the source of a client.
    pub fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            // No IPv6 network of the internet begins with these bits.
            IpAddr::V4(a) => Source(0xffff << 32 | u64::from(a.to_bits())),
            IpAddr::V6(a) => Source(((a.to_bits() >> OWNED_PREFIX) as u64).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_source() {
        let of = |ip: &str| Source::of(ip.parse().expect("ip"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::9"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("::1"), Source::OWN);
    }
}
