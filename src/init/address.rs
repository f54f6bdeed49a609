//! Addresses that the user gives to `init` and `import`.
//!
//! In: text of the command line. Out: an IP address for clients; an IP address or a host name for a node.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::config::HostName;

/// An address given by the user. Without a port, the option's own port is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// IP address.
    pub ip: IpAddr,
    /// Port; `None`: the option's own.
    pub port: Option<u16>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if let Ok(a) = s.parse::<SocketAddr>() {
            return Ok(Address {
                ip: a.ip(),
                port: Some(a.port()),
            });
        }
        let ip = s.trim_matches(['[', ']']).parse();
        ip.map(|ip| Address { ip, port: None })
            .map_err(|_| "expected an address as `192.0.2.1` or `192.0.2.1:443`".to_owned())
    }
}

/// Address of a node, given by the user: an IP address, or a host name that the edge looks up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    /// An IP address.
    Ip(Address),
    /// A host name; port `None`: the option's own.
    Name(HostName, Option<u16>),
}

impl FromStr for NodeAddress {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if let Ok(address) = s.parse() {
            return Ok(NodeAddress::Ip(address));
        }
        let expected = || "expected an address or a host name, with or without port".to_owned();
        let (host, port) = match s.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (s, None),
        };
        let port = port.map(|port| {
            port.parse()
                .ok()
                .filter(|p: &u16| *p > 0)
                .ok_or_else(expected)
        });
        Ok(NodeAddress::Name(
            host.parse().map_err(|()| expected())?,
            port.transpose()?,
        ))
    }
}

impl NodeAddress {
    /// Returns the port; `None`: the option's own.
    pub fn port(&self) -> Option<u16> {
        match self {
            NodeAddress::Ip(address) => address.port,
            NodeAddress::Name(_, port) => *port,
        }
    }

    /// Returns it with its port, or with `own`.
    pub fn with_port(&self, own: u16) -> String {
        let port = self.port().unwrap_or(own);
        match self {
            NodeAddress::Ip(address) => SocketAddr::new(address.ip, port).to_string(),
            NodeAddress::Name(name, _) => format!("{name}:{port}"),
        }
    }

    /// Returns it without its port.
    pub fn host(&self) -> String {
        match self {
            NodeAddress::Ip(address) => address.ip.to_string(),
            NodeAddress::Name(name, _) => name.to_string(),
        }
    }

    /// Whether it has colons, which YAML needs in quotes.
    pub fn is_ipv6(&self) -> bool {
        matches!(self, NodeAddress::Ip(address) if address.ip.is_ipv6())
    }
}
