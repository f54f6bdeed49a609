//! Detects by its first bytes what a connection to the node is.
//!
//! In: an accepted socket. Out: a plain or TLS stream, without the PROXY protocol header if there was one.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A plain or TLS connection with access to its socket.
pub enum Incoming {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS that ends at the node.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Incoming {
    /// Returns the socket.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Incoming::Plain(s) => s,
            Incoming::Tls(s) => s.get_ref().0,
        }
    }
}

/// Reads the PROXY protocol header, if one comes first, and does the TLS handshake, if the client begins
/// one.
pub async fn of(mut stream: TcpStream) -> io::Result<Incoming> {
    let mut first = [0; 2];
    while stream.peek(&mut first).await? == 1 {
        tokio::task::yield_now().await;
    }
    match &first {
        b"\r\n" => version_2(&mut stream).await?,
        b"PR" => version_1(&mut stream).await?,
        _ => {}
    }
    stream.peek(&mut first[..1]).await?;
    if first[0] != HANDSHAKE {
        return Ok(Incoming::Plain(stream));
    }
    Ok(Incoming::Tls(Box::new(TLS.accept(stream).await?)))
}

async fn version_1(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read_u8().await? != b'\n' {}
    Ok(())
}

async fn version_2(stream: &mut TcpStream) -> io::Result<()> {
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    stream.read_exact(&mut rest).await?;
    Ok(())
}

/// Type of a TLS handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

static TLS: LazyLock<TlsAcceptor> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["bench.test".to_owned()]);
    let made = made.expect("a certificate of a fixed name");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves the default versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key));
    TlsAcceptor::from(Arc::new(config.expect("the key is the certificate's")))
});

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Incoming::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Incoming::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Incoming::Plain(s) => Pin::new(s).poll_write(cx, data),
            Incoming::Tls(s) => Pin::new(s).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Incoming::Plain(s) => Pin::new(s).poll_flush(cx),
            Incoming::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Incoming::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Incoming::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
