//! A node's side of one connection: plain, or TLS that ends at the node.
//!
//! In: an accepted socket, and a TLS context if the node's port has a certificate. Out: one stream. Source:
//! Lightstreamer clustering §3 (`<https_server>` with a keystore of its own).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::ssl::{Ssl, SslContext};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// One connection's bytes.
pub enum Stream {
    /// As they are on the wire.
    Plain(TcpStream),
    /// Decrypted here.
    Tls(Box<SslStream<TcpStream>>),
}

impl Stream {
    /// Wraps `tcp`; the handshake follows in [`Stream::accept`].
    pub fn new(tcp: TcpStream, tls: Option<&SslContext>) -> Stream {
        match tls {
            None => Stream::Plain(tcp),
            Some(context) => {
                let ssl = Ssl::new(context).expect("a sound context");
                Stream::Tls(Box::new(SslStream::new(ssl, tcp).expect("a new session")))
            }
        }
    }

    /// Shakes hands if the stream has TLS.
    pub async fn accept(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(tls) => Pin::new(tls.as_mut())
                .accept()
                .await
                .map_err(io::Error::other),
        }
    }

    /// The underlying socket.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref(),
        }
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut dyn Both> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp),
            Stream::Tls(tls) => Pin::new(tls.as_mut()),
        }
    }
}

/// The common interface of both kinds.
trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
