//! Connects from an address of this machine that the operator chose.
//!
//! In: a socket, the address, where it will connect to. Out: the socket bound to the address, with a port that the
//! kernel chooses at connect(2): then one address has as many ports towards each node. Source: ip(7).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use tokio::net::TcpSocket;

use super::kernel;

/// Why a connect could not come from its `source`.
#[derive(Debug)]
pub struct SourceError {
    source: IpAddr,
    why: io::Error,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceError { source, why } = self;
        write!(f, "cannot connect from {source}: {why}")
    }
}

impl std::error::Error for SourceError {}

impl SourceError {
    /// Whether `e` is such an error.
    pub fn is(e: &io::Error) -> bool {
        e.get_ref().is_some_and(|inner| inner.is::<SourceError>())
    }
}

/// Opens a socket to connect to `to`; `source`: from this address.
///
/// Errors: no descriptor is left, or a [`SourceError`].
pub fn open(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source {
        let from = match (source, to) {
            // A link-local address is one of the interface that leads to the node.
            (IpAddr::V6(ip), SocketAddr::V6(to)) => {
                SocketAddrV6::new(ip, 0, 0, to.scope_id()).into()
            }
            (ip, _) => SocketAddr::new(ip, 0),
        };
        kernel::choose_port_late(&socket);
        let wrong = |why| io::Error::other(SourceError { source, why });
        socket.bind(from).map_err(wrong)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: an address of another machine, or of the other family, is told apart from every other error. Fails if
    /// it looks like a lack of ports.
    #[tokio::test]
    async fn a_wrong_source_is_told() {
        let to = "127.0.0.1:1".parse().expect("an address");
        for source in ["192.0.2.1", "::1"] {
            let source = source.parse().expect("an address");
            let e = open(to, Some(source)).expect_err("refused");
            assert!(SourceError::is(&e) && e.raw_os_error().is_none(), "{e}");
            assert!(
                e.to_string()
                    .starts_with(&format!("cannot connect from {source}: "))
            );
        }
        let socket = open(to, Some("127.0.0.9".parse().expect("an address"))).expect("bound");
        let local = socket.local_addr().expect("an address");
        assert_eq!(
            (local.ip().to_string().as_str(), local.port()),
            ("127.0.0.9", 0)
        );
        assert!(!SourceError::is(&io::Error::from_raw_os_error(
            libc::EADDRNOTAVAIL
        )));
    }
}
