//! The hash by which a client is spread over nodes.

use std::net::IpAddr;

/// Hashes an address with FNV-1a: the same on every edge and in every release.
pub(super) fn hash(ip: IpAddr) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets().iter().fold(0xcbf2_9ce4_8422_2325, step),
        IpAddr::V6(v6) => v6.octets().iter().fold(0xcbf2_9ce4_8422_2325, step),
    }
}
