//! Tells a shortage of this machine from a fault of the node: a shortage does not count against the node.
//!
//! In: errors of a connect or a check. Out: the resource that ran out; log lines at a limited rate.
//! Source: FAULTS D54 (descriptors), D55 (local ports).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use pushgate_plugins::unix::Shown;

use super::Node;
use crate::observe::seldom::Seldom;
use crate::stream::source::SourceError;

/// A resource of this machine that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Every local port towards this address is in use; other addresses can still be reached.
    Ports,
    /// Descriptors of this process or of the system.
    Descriptors,
    /// The kernel's memory for sockets.
    Memory,
    /// `source` is no address of this machine, or not of the family of the node.
    Source,
}

impl Shortage {
    /// Returns the shortage that made a connect to `to` fail with `e`; `None` if it was not a shortage.
    pub fn of(e: &io::Error, to: SocketAddr) -> Option<Self> {
        if SourceError::is(e) {
            return Some(Shortage::Source);
        }
        match e.raw_os_error()? {
            // The kernel also says this if no local address reaches `to`. Then waiting does not help.
            libc::EADDRNOTAVAIL => has_source(to).then_some(Shortage::Ports),
            libc::EMFILE | libc::ENFILE => Some(Shortage::Descriptors),
            // ENOSPC: epoll's limit of watched descriptors.
            libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC => Some(Shortage::Memory),
            _ => None,
        }
    }

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Shortage::Ports => "no_local_port",
            Shortage::Descriptors => "no_descriptor",
            Shortage::Memory => "no_memory",
            Shortage::Source => "no_source",
        }
    }

    /// Whether other nodes can still be reached.
    pub fn spares_others(self) -> bool {
        matches!(self, Shortage::Ports | Shortage::Source)
    }

    /// Logs the shortage, unless it was logged in the last 10 s.
    pub fn tell(self, node: &Node) {
        if self.is_news() {
            let (name, address) = (&node.name, Shown(node.address));
            if let (Shortage::Source, Some(source)) = (self, node.source()) {
                return log::error!(
                    "cannot connect to node {name} ({address}) from {source}, which is no address of this \
                     machine of the node's family; its state is unchanged"
                );
            }
            log::error!("{self} to connect to node {name} ({address}); its state is unchanged");
        }
    }

    /// Whether the shortage was not logged in the last 10 s; true counts as logged.
    pub fn is_news(self) -> bool {
        static TOLD: [Seldom; 4] = [const { Seldom::new() }; 4];
        TOLD[self as usize].is_due()
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Shortage::Ports => "no local port left",
            Shortage::Descriptors => "no descriptor left",
            Shortage::Memory => "no memory for sockets left",
            Shortage::Source => "`source` is no address of this machine",
        })
    }
}

/// Whether this machine has a local address that reaches `to`. Connecting UDP looks for one in the same way,
/// and a lack of its ports gives another error.
fn has_source(to: SocketAddr) -> bool {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let looked = UdpSocket::bind(any).and_then(|socket| socket.connect(to));
    !looked.is_err_and(|e| e.raw_os_error() == Some(libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D54, D55: shortages of this machine are told apart from faults of the node. Fails if a refusal, a
    /// reset or an unreachable network counts as a shortage, or a shortage as a fault.
    #[test]
    fn shortages_are_told_apart_from_faults() {
        let to = (Ipv4Addr::LOCALHOST, 80).into();
        let cases = [
            (libc::EMFILE, Some(Shortage::Descriptors)),
            (libc::ENFILE, Some(Shortage::Descriptors)),
            (libc::EADDRNOTAVAIL, Some(Shortage::Ports)),
            (libc::ENOBUFS, Some(Shortage::Memory)),
            (libc::ENOMEM, Some(Shortage::Memory)),
            (libc::ECONNREFUSED, None),
            (libc::ECONNRESET, None),
            (libc::ETIMEDOUT, None),
            (libc::EHOSTUNREACH, None),
            (libc::ENETUNREACH, None),
        ];
        for (errno, expected) in cases {
            let e = io::Error::from_raw_os_error(errno);
            assert_eq!(Shortage::of(&e, to), expected, "{e}");
        }
        let refused = io::Error::from(io::ErrorKind::InvalidData);
        assert_eq!(Shortage::of(&refused, to), None);
    }
}
