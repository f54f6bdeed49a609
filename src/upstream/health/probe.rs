//! Makes one check of one node: connect, preamble, TLS, GET, as far as its `health` asks for them.
//!
//! In: the node, its `health`. Out: passed; failed, with the reason; or not possible on this machine. A node
//! behind TLS is checked by the same handshake as its flows, so a node whose certificate is refused is Down.
//! It is a Pingora [`HealthCheck`]. Pingora's own two checks lack our authorities, the preamble, and a text
//! expected in the body.
//! Source: Diffusion load balancers, "TCP retransmission timeout"; `/lightstreamer/healthcheck` answers 200
//! where enabled.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::{Error, ErrorType};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;
use pushgate_plugins::unix::{is_unix, name_of};
use tokio::io::AsyncWriteExt;

use crate::config::{Health, HttpCheck};
use crate::stream::graceful_close;
use crate::stream::side::Side;
use crate::stream::socket::Tcp;
use crate::stream::{source, unix};
use crate::upstream::Node;
use crate::upstream::shortage::Shortage;
use crate::upstream::tls::Secure;

/// Most bytes of an answer searched for the expected text.
const MAX_BODY: usize = 64 * 1024;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The node failed the check; the reason.
    #[error("{0}")]
    Node(String),
    /// This machine could not make the check, which does not count against the node.
    #[error("{0}")]
    Short(Shortage),
}

impl From<String> for ProbeError {
    fn from(why: String) -> Self {
        ProbeError::Node(why)
    }
}

/// The check of one node.
pub struct Probe {
    node: Arc<Node>,
    /// Where the node is checked: at its address, or at another port of it.
    backend: Backend,
    preamble: &'static [u8],
    /// TLS for the check alone, of a node whose flows carry their own TLS (passthrough). An error fails each
    /// check; a plan with one is refused.
    tls: Result<Option<Secure>, String>,
    http: Option<HttpCheck>,
    timeout: Duration,
}

impl Probe {
    /// Prepares the checks of `node`.
    pub fn new(node: Arc<Node>, conf: &Health) -> Self {
        let mut address = node.address;
        let tls = conf.tls.as_ref();
        let ports = [
            conf.http.as_ref().and_then(|c| c.port),
            tls.and_then(|c| c.port),
            conf.tcp.as_ref().and_then(|c| c.port),
        ];
        if let Some(port) = ports
            .into_iter()
            .flatten()
            .next()
            .filter(|_| !is_unix(address.ip()))
        {
            address.set_port(port);
        }
        let tls = match node.tls {
            Some(_) => Ok(None),
            None => own_tls(conf, address),
        };
        let backend = Backend {
            addr: PingoraAddr::Inet(address),
            weight: 1,
            ext: Default::default(),
        };
        Probe {
            backend,
            preamble: header(conf),
            tls,
            http: conf.http.clone(),
            timeout: conf.timeout.0,
            node,
        }
    }

    /// Makes one check.
    ///
    /// Errors: why it did not pass.
    pub async fn once(&self) -> Result<(), ProbeError> {
        match tokio::time::timeout(self.timeout, self.check(&self.backend)).await {
            Ok(outcome) => outcome.map_err(|e| probe_error(*e)),
            Err(_) => Err(format!("no result within {:?}", self.timeout).into()),
        }
    }

    async fn look(&self, address: SocketAddr) -> Result<(), ProbeError> {
        let failed = |e: io::Error| match Shortage::of(&e, address) {
            Some(shortage) => ProbeError::Short(shortage),
            None => ProbeError::Node(e.to_string()),
        };
        let side = self.connect(address).await.map_err(failed)?;
        match &self.http {
            Some(http) => Ok(get(side, http, address).await?),
            None => {
                tokio::spawn(end(side));
                Ok(())
            }
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Side> {
        let stream = match name_of(address) {
            Some(name) => unix::connect(&name)?,
            None => {
                let socket = source::open(address, self.node.source())?;
                socket.connect(address).await?
            }
        };
        let mut tcp = Tcp::new(stream);
        tcp.watch_toward(self.timeout, &self.node.last_bytes, None);
        tcp.write_all(self.preamble).await?;
        let own = self.tls.as_ref().map_err(|e| io::Error::other(e.clone()))?;
        match self.node.tls.as_ref().or(own.as_ref()) {
            Some(tls) => tls.handshake(tcp).await,
            None => Ok(Side::Plain(tcp)),
        }
    }
}

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        let bad = |why: ProbeError| Error::because(ErrorType::ConnectError, "check", why);
        match target.addr.as_inet() {
            Some(address) => self.look(*address).await.map_err(bad),
            None => Err(bad(ProbeError::Node("not an internet address".into()))),
        }
    }

    /// One: [`HealthTracker`](super::tracker::HealthTracker) decides how many checks count.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// Prepares TLS for the check alone, of a node at `address` whose flows carry their own TLS.
///
/// Errors: OpenSSL refuses the system's authorities. A check without TLS would find such a node healthy.
pub fn own_tls(conf: &Health, address: SocketAddr) -> Result<Option<Secure>, String> {
    let Some(tls) = &conf.tls else {
        return Ok(None);
    };
    let ip = match is_unix(address.ip()) {
        true => "localhost".to_owned(),
        false => address.ip().to_string(),
    };
    let name = tls.server_name.as_deref().unwrap_or(&ip);
    let made = Secure::new(name, tls.verify, None, None);
    made.map(Some)
        .map_err(|e| format!("cannot set up TLS: {e}"))
}

/// Ends a connection. Over TLS in order: without close_notify the node logs an error for each check (RFC 8446
/// §6.1), and it may still send session tickets.
async fn end(mut side: Side) {
    if side.ssl().is_some() {
        graceful_close::lingering_close(&mut side, b"").await;
    }
}

/// Recovers the [`ProbeError`] that a Pingora error wraps.
fn probe_error(e: Error) -> ProbeError {
    let words = e.to_string();
    let cause = e.cause.and_then(|cause| cause.downcast().ok());
    cause.map_or(ProbeError::Node(words), |error: Box<ProbeError>| *error)
}

/// Sends a GET over `side` and compares the answer with what `conf` expects.
async fn get(side: Side, conf: &HttpCheck, address: SocketAddr) -> Result<(), String> {
    let said = |e: hyper::Error| e.to_string();
    let (mut send, connection) = http1::handshake(TokioIo::new(side)).await.map_err(said)?;
    // Ends when `send` is dropped.
    tokio::spawn(async move {
        if let Ok(parts) = connection.without_shutdown().await {
            end(parts.io.into_inner()).await;
        }
    });
    // Without the zone of an IPv6 address, which no Host may have (RFC 6874 §3).
    let own = || match is_unix(address.ip()) {
        true => "localhost".to_owned(),
        false => SocketAddr::new(address.ip(), address.port()).to_string(),
    };
    let host = conf.host.clone().unwrap_or_else(own);
    let request = http::Request::get(conf.path.as_str())
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, "pushgate-health")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = send.send_request(request).await.map_err(said)?;
    let (status, expected) = (answer.status().as_u16(), &conf.status);
    if !expected.contains(status) {
        return Err(format!("answered {status}, expected {expected}"));
    }
    match &conf.expect {
        Some(text) => find(text, answer.into_body()).await,
        None => Ok(()),
    }
}

/// Reads until `text` is found, or more than [`MAX_BODY`] bytes were read.
async fn find(text: &str, mut body: Incoming) -> Result<(), String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| e.to_string())?;
        if let Some(data) = frame.data_ref() {
            // The bytes searched so far may end with the beginning of the text.
            let from = read.len().saturating_sub(text.len());
            read.extend_from_slice(data);
            if memchr::memmem::find(&read[from..], text.as_bytes()).is_some() {
                return Ok(());
            }
        }
        if read.len() > MAX_BODY {
            break;
        }
    }
    Err(format!("`{text}` is not in its answer"))
}

/// Returns the PROXY protocol header of a check, which names no client; empty without PROXY protocol.
fn header(conf: &Health) -> &'static [u8] {
    match conf.proxy_protocol {
        None => b"",
        Some(1) => b"PROXY UNKNOWN\r\n",
        Some(_) => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}
