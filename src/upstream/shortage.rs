//! What this machine, not the node, is short of: no node is worse for it.
//!
//! In: errors of a connect or a check. Out: which of our resources ran out, told to the log at a bounded
//! pace. Source: FAULTS D54 (descriptors), D55 (local ports).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Node;

/// A resource of this machine that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Every local port is in use towards that address: others can still be reached.
    Ports,
    /// Descriptors, of this process or of the system.
    Descriptors,
    /// The kernel's memory for sockets.
    Memory,
}

/// Least time between two lines about the same shortage: it comes with a storm of connects.
const LOG_EVERY: Duration = Duration::from_secs(10);

impl Shortage {
    /// What was short, if it was for that that `e` came of connecting to `to`.
    pub fn of(e: &io::Error, to: SocketAddr) -> Option<Self> {
        match e.raw_os_error()? {
            // Also where this machine has no address that reaches it, which no time will mend.
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
        }
    }

    /// Whether another node could be reached meanwhile.
    pub fn spares_others(self) -> bool {
        self == Shortage::Ports
    }

    /// Tells the log, unless it was told lately.
    pub fn tell(self, node: &Node) {
        if self.is_news() {
            let (name, address) = (&node.name, node.address);
            log::error!("{self} to connect to node {name} ({address}); it stays as it is");
        }
    }

    /// Whether the log was not told of it lately; it is to be told now.
    pub fn is_news(self) -> bool {
        static TOLD: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        // From 1: 0 is never.
        let now = BEGIN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1;
        let told = &TOLD[self as usize];
        let last = told.load(Ordering::Relaxed);
        let due = last == 0 || now - last.min(now) >= LOG_EVERY.as_millis() as u64;
        let first = || told.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        due && first().is_ok()
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Shortage::Ports => "no local port left",
            Shortage::Descriptors => "no descriptor left",
            Shortage::Memory => "no memory for sockets left",
        })
    }
}

/// Whether this machine has an address from which `to` is reached: UDP looks for one just so, and where
/// its ports run out the error is another.
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

    /// D54, D55: what is ours is told apart from what is the node's. Fails if a refusal, a reset or a
    /// network that does not reach it is called a shortage, or the reverse.
    #[test]
    fn ours_and_the_nodes() {
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
