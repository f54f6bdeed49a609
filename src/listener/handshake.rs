//! Performs the TLS handshake of a client connection.
//!
//! In: an accepted socket. Out: its TLS side, or an error. A client that speaks plain HTTP to the TLS port
//! gets a hint in plain text. Source: FAULTS D32, D33.

use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{Ssl, SslAcceptor};
use tokio_openssl::SslStream;

use crate::stream::graceful_close::lingering_close;
use crate::stream::side::Side;
use crate::stream::socket::Tcp;

const HINT: &str = "400 Bad Request: this port speaks TLS, use https://\n";

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Garbage, no common version, or an alert of either side.
    Failed,
    /// The handshake took longer than its deadline.
    Late,
    /// The client spoke plain HTTP.
    PlainHttp,
}

impl HandshakeError {
    /// Returns the label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeError::Failed => "handshake",
            HandshakeError::Late => "handshake_timeout",
            HandshakeError::PlainHttp => "plain_http",
        }
    }
}

/// Shakes hands within `deadline`. `http`: the listener serves HTTP, so a client that speaks plain HTTP gets
/// a hint.
///
/// Errors: [`HandshakeError`]; the socket is closed.
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
    // Peeked, not taken: the handshake reads the byte again.
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
            // A lingering close lets the alert arrive. Unread bytes of the client would cause a reset that
            // overtakes it.
            lingering_close(stream.get_mut(), b"").await;
            Err(HandshakeError::Failed)
        }
    }
}
