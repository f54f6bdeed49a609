//! Parses where a push server listens: an address, or a host name to look up.
//!
//! In: text of the file. Out: an [`Address`], or a fault at the text's place.
//! Source: RFC 1123 §2.1; RFC 2782 (`_service._proto.name`).

use std::ffi::CString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use pushgate_plugins::unix::{self, Shown};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Longest host name (RFC 1035 §2.3.4), without a trailing dot.
const MAX_NAME: usize = 253;
/// What is expected after `unix:`.
const UNIX: &str = "an absolute path of at most 107 bytes, or `@` and a name, after `unix:`";
/// Longest label of a host name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A host name, in lower case. Without a trailing dot it is also looked up in the search domains of
/// `resolv.conf`, unless `resolvers` names the servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct HostName(String);

impl HostName {
    /// Returns the name as written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name without a trailing dot, as certificates have it.
    pub fn bare(&self) -> &str {
        self.0.trim_end_matches('.')
    }

    /// Whether the name means this machine (RFC 6761 §6.3).
    pub fn is_localhost(&self) -> bool {
        let name = self.bare();
        name == "localhost" || name.ends_with(".localhost")
    }
}

impl FromStr for HostName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        let label = |l: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            (1..=MAX_LABEL).contains(&l.len())
                && l.chars().all(legal)
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        // `10.0.0.300` is a mistyped address, not a name.
        let last = bare.rsplit('.').next().unwrap_or_default();
        let is_number = last.chars().all(|c| c.is_ascii_digit());
        match bare.len() <= MAX_NAME && !is_number && bare.split('.').all(label) {
            true => Ok(HostName(text.to_ascii_lowercase())),
            false => Err(()),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name and a port, such as `push1.internal:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The name.
    pub host: HostName,
    /// The port, above 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        match port.parse() {
            Ok(port @ 1..) if port.to_string() == text[host.len() + 1..] => Ok(HostPort {
                host: host.parse()?,
                port,
            }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At this address and port.
    Socket(SocketAddr),
    /// At a Unix socket of this machine, by its address of [`pushgate_plugins::unix`].
    Unix(SocketAddr),
    /// At this host name, which is looked up, and port.
    Host(HostPort),
}

impl Address {
    /// Returns the address; `None` for a host name.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Socket(address) | Address::Unix(address) => Some(*address),
            Address::Host(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(address) = unix::parse(text) {
            return address.map(Address::Unix);
        }
        match text.parse().ok().or_else(|| scoped(text)) {
            Some(address) => Ok(Address::Socket(address)),
            None => text.parse().map(Address::Host),
        }
    }
}

/// Reads an IPv6 address whose zone is the name of an interface (`[fe80::1%eth0]:80`); `None`: it is none, or this
/// machine has no such interface.
fn scoped(text: &str) -> Option<SocketAddr> {
    let (address, rest) = text.strip_prefix('[')?.split_once('%')?;
    let (zone, port) = rest.split_once("]:")?;
    let zone = CString::new(zone).ok()?;
    // SAFETY: the name is a string that ends with NUL and outlives the call.
    let index = unsafe { libc::if_nametoindex(zone.as_ptr()) };
    (index > 0).then(|| format!("[{address}%{index}]:{port}").parse().ok())?
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Unix(address) => Shown(*address).fmt(f),
            Address::Host(host) => host.fmt(f),
        }
    }
}

/// An address of this machine from which nodes are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAddress(pub IpAddr);

impl FromStr for SourceAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let ip: IpAddr = text.parse().map_err(|_| ())?;
        match ip.is_unspecified() || ip.is_multicast() {
            true => Err(()),
            false => Ok(SourceAddress(ip)),
        }
    }
}

/// An address of a node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentAddress(pub IpAddr);

impl FromStr for AgentAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().map(|SourceAddress(ip)| AgentAddress(ip))
    }
}

/// Parses a `T` inside the visitor, so that a fault keeps its place.
struct Read<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr> Visitor<'_> for Read<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let found = Unexpected::Str(text);
        text.parse().map_err(|_| match text {
            _ if text.starts_with(unix::SCHEME) => E::invalid_value(found, &UNIX),
            _ if text.contains('%') => {
                E::invalid_value(found, &"an interface of this machine after `%`")
            }
            _ => E::invalid_value(found, &self),
        })
    }
}

macro_rules! read {
    ($($type:ty: $expected:literal,)+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_str(Read($expected, std::marker::PhantomData))
            }
        }
    )+};
}

read! {
    Address: "an address or host name with its port, such as `10.0.0.1:80` or `push1.internal:80`",
    HostName: "a host name, such as `_push._tcp.internal`",
    SourceAddress: "an IP address of this machine, such as `10.0.0.9`",
    AgentAddress: "an IP address, such as `10.0.0.9`",
    HostPort: "a host name with its port, such as `push.internal:80`",
}

/// Where a socket of ours listens: an address, an IPv6 address with a zone, or `unix:/path`.
pub(super) struct Bind(SocketAddr);

impl Bind {
    /// Reads one.
    pub fn read<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
        Bind::deserialize(d).map(|Bind(address)| address)
    }

    /// Reads a list.
    pub fn list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
        let list = Vec::<Bind>::deserialize(d)?;
        Ok(list.into_iter().map(|Bind(address)| address).collect())
    }
}

impl Bind {
    /// Writes one as [`Bind::read`] reads it.
    pub fn write<S: Serializer>(address: &SocketAddr, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&Shown(*address))
    }

    /// Writes a list as [`Bind::list`] reads it.
    pub fn write_list<S: Serializer>(list: &[SocketAddr], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(list.iter().map(|address| Shown(*address).to_string()))
    }
}

impl<'de> Deserialize<'de> for Bind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Bind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("socket address")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bind, E> {
                let address = match unix::parse(text) {
                    Some(address) => {
                        let found = Unexpected::Str(text);
                        address.map_err(|()| E::invalid_value(found, &UNIX))
                    }
                    // The words of std, which the decoder translates.
                    None => (text.parse().ok().or_else(|| scoped(text)))
                        .ok_or_else(|| E::custom("invalid socket address syntax")),
                };
                address.map(Bind)
            }
        }
        d.deserialize_str(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name_and_what_is_not() {
        for good in [
            "push1.internal:80",
            "PUSH:8080",
            "a-b.c_d.example.:65535",
            "localhost:1",
            "1.push:80",
        ] {
            let read = good.parse::<Address>();
            assert!(matches!(read, Ok(Address::Host(_))), "{good}: {read:?}");
        }
        let zone = "[fe80::1%lo]:80".parse::<Address>();
        let zone = zone.ok().and_then(|address| address.socket());
        assert!(matches!(zone, Some(SocketAddr::V6(v6)) if v6.scope_id() > 0));
        for good in ["10.0.0.1:80", "[::1]:80", "[fe80::1%7]:80"] {
            let read = good.parse::<Address>();
            assert!(matches!(read, Ok(Address::Socket(_))), "{good}: {read:?}");
        }
        let (long, longer) = ("a".repeat(64), "a.".repeat(127) + "a");
        for bad in [
            "push1",
            "push1:",
            "push1:0",
            "push1:65536",
            "push1:+80",
            ":80",
            "-a:80",
            "a-:80",
            "a..b:80",
            ".a:80",
            "a b:80",
            "ä:80",
            "10.0.0.300:80",
            "10.0.0:80",
            "::1:80",
            "a/b:80",
            "[fe80::1%none.such]:80",
            "[fe80::1%]:80",
            "[10.0.0.1%lo]:80",
            "a..:80",
            "unix:",
            "unix:run/app.sock",
            &format!("{long}:80"),
            &format!("{longer}:80"),
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_told_apart_by_letters_not_by_case() {
        let name = |text: &str| text.parse::<HostName>().expect("a name");
        assert_eq!(name("Push.Internal"), name("push.internal"));
        assert_eq!(name("push.internal.").bare(), "push.internal");
        assert!(name("localhost").is_localhost() && name("a.localhost.").is_localhost());
        assert!(!name("localhost.evil").is_localhost());
    }
}
