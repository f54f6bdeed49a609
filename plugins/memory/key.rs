//! Under what a table files a client of a pool.

use std::net::IpAddr;

use crate::api::PoolId;

/// A client of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) address: [u8; 16],
    pub(super) pool: PoolId,
}

impl Key {
    /// Makes a key from an address. IPv4 is kept as its mapped IPv6 address.
    pub fn new(client: IpAddr, pool: PoolId) -> Self {
        let address = match client {
            IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
            IpAddr::V6(a) => a.octets(),
        };
        Key { address, pool }
    }

    /// Makes a key from the hash of an id: 128 bits, so that no two ids collide.
    pub fn of_hash(hash: [u8; 16], pool: PoolId) -> Self {
        Key {
            address: hash,
            pool,
        }
    }

    /// Returns the pool.
    pub fn pool(&self) -> PoolId {
        self.pool
    }

    /// Returns the 128 bits under which the client is filed.
    pub fn id(&self) -> &[u8; 16] {
        &self.address
    }

    /// Returns the id by which a rebalance finds the client: the same on every edge.
    pub fn mark(&self) -> u64 {
        use std::hash::Hasher;
        let mut h = siphasher::sip::SipHasher13::new_with_keys(0x7374_6963, 0x6b79_6970);
        h.write(&self.address);
        h.finish()
    }
}
