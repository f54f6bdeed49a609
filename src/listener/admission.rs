//! Admits a client: reads the PROXY protocol header of a sender in `accept_proxy`, then shakes hands, or peeks at a
//! ClientHello that passes through if a plugin routes by server name.
//!
//! In: an accepted socket. Out: a client connection whose protocol can begin, or an [`AdmissionError`].
//! Source: Lightstreamer clustering §1 (Proxy Protocol), §3; FAULTS D32, D33, D38.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::accept::Accepted;
use super::client_hello::{self, Hello};
use super::handshake::HandshakeError;
use super::{handshake, proxy_protocol};
use crate::config::{self, Mode};
use crate::proxy::conn::Conn;
use crate::proxy::listener::Listener;
use crate::proxy::open::{LimitReached, Open};
use crate::proxy::turn::Turn;
use crate::stream::side::Side;
use crate::stream::socket::Tcp;
use crate::tls::HandshakeInfo;
use crate::upstream::shortage::Shortage;

/// Why a client connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// A limit of connections is reached.
    Limit(LimitReached),
    /// The process uses more memory than `memory.limit`.
    Memory,
    /// The connection was closed during its admission, to make room for another client.
    ClosedIdle,
    /// The client left before it was admitted.
    Gone,
    /// A trusted sender sent no PROXY protocol header, or a broken one.
    ProxyProtocol,
    /// The PROXY protocol header did not arrive in time.
    ProxyProtocolTimeout,
    /// The ClientHello did not arrive in time.
    ClientHelloTimeout,
    /// The TLS handshake failed.
    Handshake(HandshakeError),
    /// No descriptor or memory was left after the TLS handshake.
    Short(Shortage),
    /// The data thread has ended, because the process stops.
    Stopping,
}

impl AdmissionError {
    /// Returns the label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AdmissionError::Limit(LimitReached::Connections) => "max_connections",
            AdmissionError::Limit(LimitReached::PerClient) => "max_connections_per_client",
            AdmissionError::Limit(LimitReached::Share) => "client_share",
            AdmissionError::Memory => "memory",
            AdmissionError::ClosedIdle => "closed_idle",
            AdmissionError::Gone => "gone",
            AdmissionError::ProxyProtocol => "proxy_protocol",
            AdmissionError::ProxyProtocolTimeout => "proxy_protocol_timeout",
            AdmissionError::ClientHelloTimeout => "client_hello_timeout",
            AdmissionError::Handshake(e) => e.as_str(),
            AdmissionError::Short(shortage) => shortage.as_str(),
            AdmissionError::Stopping => "stopping",
        }
    }

    /// Says why a connection to `client` could not move to its data thread.
    pub fn of_move(e: &io::Error, client: SocketAddr) -> Self {
        Shortage::of(e, client).map_or(AdmissionError::Stopping, AdmissionError::Short)
    }
}

/// Admits a client. Each step has the listener's `handshake_timeout`.
///
/// Errors: why the connection is refused.
pub async fn admit(open: Open, accepted: Accepted) -> Result<(Side, Arc<Conn>), AdmissionError> {
    let place = open.place();
    tokio::select! {
        biased;
        () = poll_fn(|cx| place.poll_told(cx)) => Err(AdmissionError::ClosedIdle),
        admitted = steps(open, accepted) => admitted,
    }
}

async fn steps(mut open: Open, accepted: Accepted) -> Result<(Side, Arc<Conn>), AdmissionError> {
    let listener = Arc::clone(&open);
    let conf = listener.conf.load_full();
    let (peer, mut at) = (accepted.peer, accepted.at);
    let (mut tcp, mut vip) = registered(accepted).map_err(|_| AdmissionError::Gone)?;
    let (mut client, mut in_front) = (peer, None);
    if conf.accept_proxy.contains(peer.ip()) {
        let read = tokio::time::timeout(conf.handshake_timeout.0, proxy_protocol::read(&mut tcp));
        match read.await {
            Ok(Ok(announced)) => {
                if let Some(addresses) = announced.addresses {
                    (client, vip) = addresses;
                    named(&mut open, client)?;
                }
                in_front = announced.tls;
            }
            Ok(Err(_)) => return Err(AdmissionError::ProxyProtocol),
            Err(_) => return Err(AdmissionError::ProxyProtocolTimeout),
        }
    }
    if let Some(turn) = open.connection_turn() {
        Box::pin(in_turn(turn, &tcp, listener.tls.is_some())).await?;
        at = Instant::now();
    }
    let (side, tls) = match &listener.tls {
        Some(front) => {
            let http = conf.mode == Mode::Http;
            let deadline = conf.handshake_timeout.0;
            let share = open.share().cloned();
            let shaken = handshake::shake(front.acceptor(vip), tcp, deadline, http, share).await;
            let side = shaken.map_err(AdmissionError::Handshake)?;
            let tls = side.ssl().map(HandshakeInfo::of);
            (side, tls)
        }
        None => match in_front {
            Some(tls) => (Side::Plain(tcp), Some(ended_in_front(tls))),
            None => passed_through(&listener, &conf, tcp).await?,
        },
    };
    let conn = Conn::new(open, at, client, peer, vip, tls);
    Ok((side, Arc::new(conn)))
}

/// Counts the connection for the client that a trusted sender has named.
fn named(open: &mut Open, client: SocketAddr) -> Result<(), AdmissionError> {
    if open.is_proxy(client.ip()) {
        return Ok(());
    }
    open.name(client.ip()).map_err(AdmissionError::Limit)
}

/// Waits for the connection's turn at the rate of its client. The edge has read nothing of it, so it costs no more
/// than its socket. `shakes`: TLS ends here, so a client that has sent FIN cannot go on.
///
/// Errors: the client has left.
async fn in_turn(turn: Turn, tcp: &Tcp, shakes: bool) -> Result<(), AdmissionError> {
    let left = async {
        match shakes {
            true => tcp.peer_ended().await,
            false => tcp.peer_failed().await,
        }
    };
    tokio::select! {
        biased;
        () = turn => Ok(()),
        () = left => Err(AdmissionError::Gone),
    }
}

/// Registers the socket with this thread's runtime, and finds the address that the client reached. Sets no options:
/// the socket has inherited those of its listening socket.
fn registered(accepted: Accepted) -> io::Result<(Tcp, SocketAddr)> {
    let stream = TcpStream::from_std(accepted.stream)?;
    let vip = accepted.vip.map_or_else(|| stream.local_addr(), Ok)?;
    Ok((Tcp::new(stream), vip))
}

/// Describes a TLS connection that ended at the balancer in front of us, from its PROXY protocol header.
fn ended_in_front(tls: proxy_protocol::Tls) -> HandshakeInfo {
    HandshakeInfo {
        sni: tls.authority,
        version: tls.version,
        in_front: true,
        ..HandshakeInfo::default()
    }
}

/// Peeks at the ClientHello of a layer-4 connection, if a plugin routes by server name. The bytes still go to
/// the node.
async fn passed_through(
    listener: &Listener,
    conf: &config::Listener,
    mut tcp: Tcp,
) -> Result<(Side, Option<HandshakeInfo>), AdmissionError> {
    let table = listener.table.load();
    let wanted = table.plugins.routers.iter().any(|p| p.wants_sni());
    drop(table);
    if conf.mode != Mode::Tcp || !wanted {
        return Ok((Side::Plain(tcp), None));
    }
    let read = tokio::time::timeout(conf.handshake_timeout.0, client_hello::read(&mut tcp));
    let hello = read
        .await
        .map_err(|_| AdmissionError::ClientHelloTimeout)?
        .map_err(|_| AdmissionError::Gone)?;
    let tls = match hello {
        Hello::Tls(sni) => Some(HandshakeInfo {
            sni,
            ..HandshakeInfo::default()
        }),
        Hello::Other => None,
    };
    Ok((Side::Plain(tcp), tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a connection that cannot move to its data thread is counted by its true reason. Fails if each error
    /// counts as a lack of descriptors.
    #[test]
    fn why_a_connection_cannot_move() {
        let client = ([192, 0, 2, 1], 4000).into();
        let of = |e: io::Error| AdmissionError::of_move(&e, client).as_str();
        let cases = [
            (libc::EMFILE, "no_descriptor"),
            (libc::ENFILE, "no_descriptor"),
            (libc::ENOMEM, "no_memory"),
            (libc::ENOSPC, "no_memory"),
        ];
        for (errno, reason) in cases {
            assert_eq!(of(io::Error::from_raw_os_error(errno)), reason);
        }
        let ended = io::Error::other("the runtime has ended");
        assert_eq!(of(ended), "stopping");
    }
}
