//! Test clients: they dial plain or TLS, from a chosen source address, and speak the protocol a test needs.
//!
//! In: a [`Dial`]. Out: a stream, or a client on top of one: [`h1::H1`], [`h2::H2`], [`ws::connect`],
//! [`curl`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslOptions};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use crate::deadline;

pub mod frames;
pub mod h1;
pub mod h2;
pub mod h2_ws;
pub mod kernel;
pub mod raw_h2;
pub mod shaped;
pub mod ws;

/// A client's stream, plain or TLS.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a client connects, and how.
#[derive(Clone)]
pub struct Dial {
    /// Where to connect.
    pub to: SocketAddr,
    /// Source address; `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// Name for `Host` and for TLS.
    pub host: String,
    /// TLS; `None`: plain.
    pub tls: Option<Tls>,
    /// SO_RCVBUF in bytes (the kernel doubles it), set before connecting.
    pub rcvbuf: Option<u32>,
}

/// A client's side of TLS.
#[derive(Clone)]
pub struct Tls {
    /// The authority it trusts.
    pub ca: X509,
    /// Server name to send; `None`: no SNI.
    pub sni: Option<String>,
    /// Protocols it offers, e.g. `b"\x02h2\x08http/1.1"`; empty: no ALPN.
    pub alpn: &'static [u8],
}

impl Dial {
    /// Plain, to `to`; `Host` is that address.
    pub fn plain(to: SocketAddr) -> Dial {
        Dial {
            to,
            from: None,
            host: to.to_string(),
            tls: None,
            rcvbuf: None,
        }
    }

    /// TLS to `to`, asking for `host`, trusting `ca`, without ALPN.
    pub fn tls(to: SocketAddr, host: &str, ca: &X509) -> Dial {
        let tls = Tls {
            ca: ca.clone(),
            sni: Some(host.to_owned()),
            alpn: b"",
        };
        Dial {
            host: host.to_owned(),
            tls: Some(tls),
            ..Dial::plain(to)
        }
    }

    /// Sets the source address.
    pub fn from(mut self, from: impl Into<IpAddr>) -> Dial {
        self.from = Some(from.into());
        self
    }

    /// Sets the host.
    pub fn host(mut self, host: &str) -> Dial {
        self.host = host.to_owned();
        self
    }

    /// Connects; panics on an error.
    pub async fn tcp(&self) -> TcpStream {
        self.try_tcp()
            .await
            .unwrap_or_else(|e| panic!("connect {}: {e}", self.to))
    }

    /// Connects.
    pub async fn try_tcp(&self) -> std::io::Result<TcpStream> {
        let socket = match self.to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(size) = self.rcvbuf {
            socket.set_recv_buffer_size(size)?;
        }
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        let stream = deadline("a connection", socket.connect(self.to)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Connects, and shakes hands if TLS is set; panics on an error.
    pub async fn io(&self) -> Box<dyn Io> {
        let stream = self.tcp().await;
        match &self.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(handshake(stream, tls).await.expect("a TLS handshake")),
        }
    }
}

/// Shakes hands over `stream`; the certificate must be valid for the requested name.
pub async fn handshake<S: Io>(
    stream: S,
    tls: &Tls,
) -> Result<tokio_openssl::SslStream<S>, openssl::ssl::Error> {
    let connector = SslConnector::builder(SslMethod::tls_client())?;
    shake(stream, tls, connector).await
}

/// As [`handshake`], but an end without close_notify is an error of the read that reaches it.
pub async fn strict_handshake<S: Io>(
    stream: S,
    tls: &Tls,
) -> Result<tokio_openssl::SslStream<S>, openssl::ssl::Error> {
    let mut connector = SslConnector::builder(SslMethod::tls_client())?;
    connector.clear_options(SslOptions::IGNORE_UNEXPECTED_EOF);
    shake(stream, tls, connector).await
}

async fn shake<S: Io>(
    stream: S,
    tls: &Tls,
    mut connector: SslConnectorBuilder,
) -> Result<tokio_openssl::SslStream<S>, openssl::ssl::Error> {
    connector.cert_store_mut().add_cert(tls.ca.clone())?;
    if !tls.alpn.is_empty() {
        connector.set_alpn_protos(tls.alpn)?;
    }
    let mut config = connector.build().configure()?;
    config.set_use_server_name_indication(tls.sni.is_some());
    config.set_verify_hostname(tls.sni.is_some());
    let ssl = config.into_ssl(tls.sni.as_deref().unwrap_or_default())?;
    let mut stream = tokio_openssl::SslStream::new(ssl, stream)?;
    deadline("a TLS handshake", Pin::new(&mut stream).connect()).await?;
    Ok(stream)
}

/// Runs curl with `--silent --show-error` and a time limit. Returns standard output; panics with standard
/// error if curl fails.
pub async fn curl(args: &[&str]) -> String {
    let mut command = tokio::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20"]);
    let output = command.args(args).kill_on_drop(true).output().await;
    let output = output.expect("curl is installed (`make test` installs it)");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Arguments `--resolve` and `--cacert` of curl, for a name at an address.
pub fn curl_at(host: &str, to: SocketAddr, ca: Option<PathBuf>) -> Vec<String> {
    let mut args = vec![
        "--resolve".to_owned(),
        format!("{host}:{}:{}", to.port(), to.ip()),
    ];
    if let Some(ca) = ca {
        args.extend(["--cacert".to_owned(), ca.display().to_string()]);
    }
    args
}
