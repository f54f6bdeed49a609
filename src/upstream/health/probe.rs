//! One check of one node: connect, preamble, TLS, GET, as far as the node's `health` says.
//!
//! A [`HealthCheck`] as the framework defines it; the framework's own two know neither our authorities,
//! nor a preamble, nor text that is expected in a body.
//!
//! In: the node, its `health`. Out: good, or in words why not, or that it could not be made. A node behind TLS is checked by the very
//! handshake flows get, so that one whose certificate is refused is Down.
//! Source: Diffusion load balancers, "TCP retransmission timeout"; `/lightstreamer/healthcheck` answers
//! 200 where enabled.

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
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::config::{Health, HttpCheck};
use crate::stream::side::Side;
use crate::stream::socket::Tcp;
use crate::upstream::Node;
use crate::upstream::shortage::Shortage;
use crate::upstream::tls::Secure;

/// Most bytes of an answer that are searched for the expected text.
const MAX_BODY: usize = 64 * 1024;

/// Why a check is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The node is not as it should be.
    #[error("{0}")]
    Node(String),
    /// This machine could not make the check: it says nothing of the node.
    #[error("{0}")]
    Short(Shortage),
}

impl From<String> for ProbeError {
    fn from(why: String) -> Self {
        ProbeError::Node(why)
    }
}

/// How one node is checked.
pub struct Probe {
    node: Arc<Node>,
    /// Where it is checked: its address, or another port of it.
    backend: Backend,
    preamble: &'static [u8],
    /// TLS of the check alone, towards a node whose own TLS passes through.
    tls: Option<Secure>,
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
        if let Some(port) = ports.into_iter().flatten().next() {
            address.set_port(port);
        }
        let own = tls.filter(|_| node.tls.is_none()).map(|c| {
            let ip = address.ip().to_string();
            let name = c.server_name.as_deref().unwrap_or(&ip);
            Secure::new(name, c.verify, None, None)
        });
        let tls = own.and_then(|made| {
            let failed = |e| log::error!("node {}: TLS of its check: {e}", node.name);
            made.map_err(failed).ok()
        });
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
    /// Errors: why it is bad.
    pub async fn once(&self) -> Result<(), ProbeError> {
        match tokio::time::timeout(self.timeout, self.check(&self.backend)).await {
            Ok(outcome) => outcome.map_err(|e| probe_error(*e)),
            Err(_) => Err(format!("not done within {:?}", self.timeout).into()),
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
            None => Ok(()),
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Side> {
        let mut tcp = Tcp::new(TcpStream::connect(address).await?);
        tcp.watch_toward(self.timeout, &self.node.last_bytes);
        tcp.write_all(self.preamble).await?;
        match self.node.tls.as_ref().or(self.tls.as_ref()) {
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

    /// One: how many count is [`HealthTracker`](super::tracker::HealthTracker)'s to say.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// What the framework's error was made of.
fn probe_error(e: Error) -> ProbeError {
    let words = e.to_string();
    let cause = e.cause.and_then(|cause| cause.downcast().ok());
    cause.map_or(ProbeError::Node(words), |error: Box<ProbeError>| *error)
}

/// A GET over `side` that must answer what `conf` expects.
async fn get(side: Side, conf: &HttpCheck, address: SocketAddr) -> Result<(), String> {
    let said = |e: hyper::Error| e.to_string();
    let (mut send, connection) = http1::handshake(TokioIo::new(side)).await.map_err(said)?;
    // Ends when the sender is dropped.
    tokio::spawn(connection);
    let host = conf.host.clone().unwrap_or_else(|| address.to_string());
    let request = http::Request::get(conf.path.as_str())
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, "pushgate-health")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = send.send_request(request).await.map_err(said)?;
    let (status, expected) = (answer.status().as_u16(), conf.status);
    if status != expected {
        return Err(format!("answered {status}, expected {expected}"));
    }
    match &conf.expect {
        Some(text) => find(text, answer.into_body()).await,
        None => Ok(()),
    }
}

/// Reads until `text` was there.
async fn find(text: &str, mut body: Incoming) -> Result<(), String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| e.to_string())?;
        if let Some(data) = frame.data_ref() {
            // What was searched already may hold the text's beginning.
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

/// The PROXY protocol header of a check, which says that nobody is behind it; empty where there is none.
fn header(conf: &Health) -> &'static [u8] {
    match conf.proxy_protocol {
        None => b"",
        Some(1) => b"PROXY UNKNOWN\r\n",
        Some(_) => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}
