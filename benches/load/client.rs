//! One client connection: connects, does a TLS handshake if asked, exchanges one request head for one
//! answer head.
//!
//! In: an address. Out: a stream, and the bytes that came after the answer's head.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::{BoxError, Options};

/// Longest wait for a step that should take no time.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A plain or TLS connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A boxed connection.
pub type Conn = Box<dyn Stream>;

static TLS: LazyLock<TlsConnector> = LazyLock::new(|| connector(false, b"http/1.1"));

/// Makes a TLS client that offers `protocol`. With `resume` it resumes with its last ticket; otherwise each
/// handshake is a full one, as of a new client.
pub fn connector(resume: bool, protocol: &[u8]) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    if !resume {
        config.resumption = rustls::client::Resumption::disabled();
    }
    TlsConnector::from(Arc::new(config))
}

/// Connects. `receive`: size of the socket's receive buffer in bytes; `None`: the kernel's choice.
pub async fn tcp(options: &Options, receive: Option<usize>) -> Result<TcpStream, BoxError> {
    let socket = if options.to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    if let Some(bytes) = receive {
        SockRef::from(&socket).set_recv_buffer_size(bytes)?;
    }
    let stream = timeout(PATIENCE, socket.connect(options.to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects as [`tcp`], and does a TLS handshake if `--tls` is set.
pub async fn connect(options: &Options, receive: Option<usize>) -> Result<Conn, BoxError> {
    let stream = tcp(options, receive).await?;
    if !options.tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from("bench.test")?;
    Ok(Box::new(
        timeout(PATIENCE, TLS.connect(name, stream)).await??,
    ))
}

/// Sends a GET for `path`, as a WebSocket upgrade if `upgrade`, with more header lines in `more`.
pub async fn ask(conn: &mut Conn, path: &str, upgrade: bool, more: &str) -> io::Result<()> {
    conn.write_all(request(path, upgrade, more).as_bytes())
        .await?;
    conn.flush().await
}

/// Returns the text of such a request.
pub fn request(path: &str, upgrade: bool, more: &str) -> String {
    let upgrade = if upgrade {
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    } else {
        ""
    };
    format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\n{upgrade}{more}\r\n")
}

/// Reads the answer's head; returns the head and the bytes after it. Errors: the status is not `status`.
pub async fn head(conn: &mut Conn, status: &str) -> Result<(String, Vec<u8>), BoxError> {
    let mut got = Vec::with_capacity(1024);
    let end = loop {
        if let Some(end) = head_end(&got) {
            break end;
        }
        if timeout(PATIENCE, conn.read_buf(&mut got)).await?? == 0 {
            return Err("closed before the answer's head".into());
        }
    };
    let rest = got.split_off(end);
    let head = String::from_utf8_lossy(&got).into_owned();
    match head.split(' ').nth(1) == Some(status) {
        true => Ok((head, rest)),
        false => Err(format!("wanted {status}: {}", head.lines().next().unwrap_or("")).into()),
    }
}

/// Returns where the head in `got` ends, one past its empty line.
pub fn head_end(got: &[u8]) -> Option<usize> {
    got.windows(4).position(|w| w == b"\r\n\r\n").map(|i| i + 4)
}

/// Accepts any certificate, because the bench has just made it.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
