//! The TLS handshake of a client connection.
//!
//! In: an accepted socket. Out: the TLS side, or why there is none. A client that speaks plain HTTP
//! to the TLS port is told so in plain text. Source: FAULTS D32, D33.

use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{Ssl, SslAcceptor};
use tokio_openssl::SslStream;

use crate::stream::graceful_close::lingering_close;
use crate::stream::side::Side;
use crate::stream::socket::Tcp;

const HINT: &str = "400 Bad Request: this port speaks TLS, use https://\n";

/// Why a handshake did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// It failed: garbage, no common version, an alert of either side.
    Failed,
    /// It was not done in time.
    Late,
    /// The client spoke plain HTTP.
    PlainHttp,
}

impl HandshakeError {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeError::Failed => "handshake",
            HandshakeError::Late => "handshake_timeout",
            HandshakeError::PlainHttp => "plain_http",
        }
    }
}

/// Shakes hands within `deadline`. `http`: the port serves HTTP, so that plain HTTP gets a hint.
///
/// Errors: why there is no TLS; the socket is closed then.
pub async fn shake(
    acceptor: SslAcceptor,
    tcp: Tcp,
    deadline: Duration,
    http: bool,
) -> Result<Side, HandshakeError> {
    match tokio::time::timeout(deadline, accept(acceptor, tcp, http)).await {
        Ok(shaken) => shaken,
        Err(_) => Err(HandshakeError::Late),
    }
}

async fn accept(acceptor: SslAcceptor, mut tcp: Tcp, http: bool) -> Result<Side, HandshakeError> {
    // A look only: the handshake reads the byte again.
    let first = tcp.first_byte().await;
    if http && first.is_some_and(|b| b.is_ascii_uppercase()) {
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{HINT}",
            HINT.len()
        );
        lingering_close(&mut tcp, head.as_bytes()).await;
        return Err(HandshakeError::PlainHttp);
    }
    let ssl = Ssl::new(acceptor.context()).map_err(|_| HandshakeError::Failed)?;
    let mut stream = SslStream::new(ssl, tcp).map_err(|_| HandshakeError::Failed)?;
    match Pin::new(&mut stream).accept().await {
        Ok(()) => Ok(Side::Tls(Box::new(stream))),
        Err(_) => {
            // The alert is on its way; what the client still sends must not overtake it.
            lingering_close(stream.get_mut(), b"").await;
            Err(HandshakeError::Failed)
        }
    }
}
