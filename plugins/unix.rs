//! Gives Unix sockets a place among the addresses of the Internet: each path has an address of its own.
//!
//! In: the name of a socket, `/path` or `@abstract`. Out: a socket address in `100::/64`, from which no packet ever
//! comes (RFC 6666), and the name of such an address. So every table, limit and rule that is keyed by an address
//! has room for Unix sockets. The address is a hash of the name: it is the same in each process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use parking_lot::Mutex;

use crate::api::NodeId;

/// What an address of the file begins with.
pub const SCHEME: &str = "unix:";

/// The first half of all these addresses.
const NET: u128 = 0x0100 << 112;
const NET_BITS: u128 = !(u64::MAX as u128);

/// Longest name, in bytes: `sun_path` has 108, with the NUL at its end (or before an abstract name).
const MAX_NAME: usize = 107;

/// The client of a Unix socket: it has no address of its own.
pub const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(NET)), 0);

/// The names behind the addresses. A name stays for the life of the process; only the configuration adds some.
static NAMES: Mutex<BTreeMap<u64, Arc<str>>> = Mutex::new(BTreeMap::new());

/// Returns the address of the socket that `text` names, such as `unix:/run/app.sock`. `None`: `text` names none.
///
/// Errors: the name is empty, too long, or not an absolute path.
pub fn parse(text: &str) -> Option<Result<SocketAddr, ()>> {
    let name = text.strip_prefix(SCHEME)?;
    let named = name.starts_with(['/', '@']) && (2..=MAX_NAME).contains(&name.len());
    Some(match named && !name.contains(char::is_control) {
        true => Ok(address_of(name)),
        false => Err(()),
    })
}

fn address_of(name: &str) -> SocketAddr {
    let hash = NodeId::of(name).0.max(1);
    NAMES.lock().entry(hash).or_insert_with(|| name.into());
    let ip = Ipv6Addr::from_bits(NET | u128::from(hash));
    // Not 0, which stands for any port.
    SocketAddr::new(ip.into(), 1)
}

/// Returns the name of the Unix socket at `address`: a path, or `@` and an abstract name.
pub fn name_of(address: SocketAddr) -> Option<Arc<str>> {
    match address.ip() {
        IpAddr::V6(ip) if is_unix(ip.into()) => NAMES.lock().get(&(ip.to_bits() as u64)).cloned(),
        _ => None,
    }
}

/// Returns the network of all Unix sockets and their clients.
pub fn network() -> IpNet {
    let net = Ipv6Net::new_assert(Ipv6Addr::from_bits(NET), 64);
    IpNet::V6(net)
}

/// Whether `ip` belongs to a Unix socket, or to a client of one.
pub fn is_unix(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_bits() & NET_BITS == NET)
}

/// Shows an address to people: `unix:/run/app.sock`, `unix:` for a client of a Unix socket, `10.0.0.1:80`.
pub struct Shown(pub SocketAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_unix(self.0.ip()) {
            true => write!(f, "{SCHEME}{}", name_of(self.0).as_deref().unwrap_or("")),
            false => self.0.fmt(f),
        }
    }
}

/// Shows the address of a client without port: `unix:` for a client of a Unix socket.
pub struct ShownIp(pub IpAddr);

impl fmt::Display for ShownIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match is_unix(self.0) {
            true => f.write_str(SCHEME),
            false => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_an_address_of_its_own() {
        let at = |text: &str| parse(text).expect("a Unix socket").expect(text);
        let (app, other) = (at("unix:/run/app.sock"), at("unix:@app"));
        assert_eq!(app, at("unix:/run/app.sock"));
        assert_ne!(app, other);
        assert_eq!(name_of(app).as_deref(), Some("/run/app.sock"));
        assert_eq!(Shown(app).to_string(), "unix:/run/app.sock");
        assert_eq!(Shown(other).to_string(), "unix:@app");
        assert_eq!(Shown(CLIENT).to_string(), "unix:");
        assert_eq!(ShownIp(CLIENT.ip()).to_string(), "unix:");
        for bad in [
            "unix:",
            "unix:/",
            "unix:@",
            "unix:run/app",
            "unix:/a\n",
            &format!("unix:/{}", "a".repeat(107)),
        ] {
            assert_eq!(parse(bad), Some(Err(())), "{bad}");
        }
        for other in ["10.0.0.1:80", "[100::1]:80", "unixes:80"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(!is_unix("100:0:0:1::".parse().expect("an address")));
        assert_eq!(
            Shown("10.0.0.1:80".parse().expect("an address")).to_string(),
            "10.0.0.1:80"
        );
    }
}
