//! Checks each node in a loop of its own, so that a slow check of one delays no other.
//!
//! In: the node's `health`. Out: verdicts to [`Node::set_healthy`]. The first check decides the
//! initial state; a failed connect asks for a check at once.
//! Source: DESIGN of fail over, Diffusion load balancers, "TCP retransmission timeout";
//! `/lightstreamer/healthcheck` answers 200 where enabled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType};
use pingora_http::RequestHeader;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Node;
use crate::config::{Health, HttpCheck};
use crate::observe::metrics;
use crate::stream::side::Side;
use crate::stream::socket::Tcp;

/// The check loop of one node.
pub struct Checker {
    node: Arc<Node>,
    backend: Backend,
    check: Box<dyn HealthCheck + Send + Sync>,
    conf: Health,
    /// Without a configured check the node is only looked at when a connect has failed.
    on_suspicion_only: bool,
}

/// What a row of checks says so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Present verdict.
    pub healthy: bool,
    /// Checks in a row that contradict it.
    pub against: u32,
}

impl Tally {
    /// Counts one check; the verdict turns after `rise` good or `fall` bad ones in a row.
    pub fn count(self, good: bool, rise: u32, fall: u32) -> Tally {
        if good == self.healthy {
            return Tally { against: 0, ..self };
        }
        let needed = if good { rise } else { fall };
        if self.against + 1 >= needed {
            Tally {
                healthy: good,
                against: 0,
            }
        } else {
            Tally {
                against: self.against + 1,
                ..self
            }
        }
    }
}

impl Checker {
    /// Prepares the checks of a node; without `conf`, a TCP check after a failed connect.
    pub fn new(node: Arc<Node>, conf: Option<&Health>) -> Self {
        let on_suspicion_only = conf.is_none();
        let conf = conf.cloned().unwrap_or_else(Health::tcp_default);
        let mut address = node.address;
        let port = conf
            .http
            .as_ref()
            .map_or(conf.tcp.as_ref().and_then(|t| t.port), |h| h.port);
        if let Some(port) = port {
            address.set_port(port);
        }
        let check: Box<dyn HealthCheck + Send + Sync> = match &conf.http {
            http if node.tls.is_some() => Box::new(TlsCheck {
                node: node.clone(),
                address,
                http: http.clone(),
                preamble: header(&conf),
            }),
            Some(http) => {
                let mut check = http_check(&node, http, conf.timeout.0);
                check.peer_template.options.custom_l4 = local(&conf);
                Box::new(check)
            }
            None => {
                let mut check = TcpHealthCheck::new();
                check.peer_template.options.connection_timeout = Some(conf.timeout.0);
                check.peer_template.options.custom_l4 = local(&conf);
                check
            }
        };
        let backend = Backend {
            addr: PingoraAddr::Inet(address),
            weight: 1,
            ext: Default::default(),
        };
        Checker {
            node,
            backend,
            check,
            conf,
            on_suspicion_only,
        }
    }

    /// Makes one check.
    async fn once(&self) -> bool {
        let good = tokio::time::timeout(self.conf.timeout.0, self.check.check(&self.backend)).await;
        let good = matches!(good, Ok(Ok(())));
        let result = if good { "good" } else { "bad" };
        metrics::get()
            .checks
            .with_label_values(&[&self.node.name, result])
            .inc();
        good
    }

    /// The first check: its verdict is the initial state.
    pub async fn first(&self) {
        if !self.on_suspicion_only {
            let good = self.once().await;
            self.node.set_healthy(good);
        }
    }

    /// Checks until the task is dropped.
    pub async fn run(self) {
        let mut tally = Tally {
            healthy: self.node.is_healthy(),
            against: 0,
        };
        loop {
            self.wait(tally).await;
            let started = tokio::time::Instant::now();
            let good = self.once().await;
            let before = tally;
            tally = tally.count(good, self.conf.rise, self.conf.fall);
            if tally.healthy != before.healthy {
                self.node.set_healthy(tally.healthy);
            }
            // A check that used up its deadline does not stretch the period.
            let spent = started.elapsed();
            if tally.against > 0 && spent < self.conf.timeout.0 {
                tokio::time::sleep(self.conf.timeout.0.min(self.interval() / 4)).await;
            }
        }
    }

    async fn wait(&self, tally: Tally) {
        if tally.against > 0 {
            // The state is about to change: do not wait a whole period.
            return;
        }
        if self.on_suspicion_only && tally.healthy {
            self.node.suspect.notified().await;
            return;
        }
        let jitter = 0.9 + 0.2 * fastrand::f64();
        tokio::select! {
            () = tokio::time::sleep(self.interval().mul_f64(jitter)) => {}
            () = self.node.suspect.notified() => {}
        }
    }

    fn interval(&self) -> Duration {
        self.conf.interval.0
    }
}

/// The check of a node behind TLS: by the very handshake flows get, so that a node whose certificate
/// is refused is Down. The framework's own check knows neither our authorities nor our identity.
struct TlsCheck {
    node: Arc<Node>,
    address: SocketAddr,
    http: Option<HttpCheck>,
    preamble: &'static [u8],
}

#[async_trait]
impl HealthCheck for TlsCheck {
    async fn check(&self, _: &Backend) -> pingora::Result<()> {
        let failed = |e: &dyn std::fmt::Display| {
            let why = format!("{}: {e}", self.node.name);
            Error::explain(ErrorType::ConnectError, why)
        };
        let side = self.connect().await.map_err(|e| failed(&e))?;
        let Some(http) = &self.http else {
            return Ok(());
        };
        let status = get(side, http, self.address)
            .await
            .map_err(|e| failed(&e))?;
        if status != http.status {
            return Err(failed(&format_args!("answered {status}")));
        }
        Ok(())
    }

    fn health_threshold(&self, _: bool) -> usize {
        1
    }
}

impl TlsCheck {
    async fn connect(&self) -> std::io::Result<Side> {
        let mut tcp = TcpStream::connect(self.address).await?;
        tcp.write_all(self.preamble).await?;
        let tcp = Tcp::new(tcp);
        match &self.node.tls {
            Some(tls) => tls.handshake(tcp).await,
            None => Ok(Side::Plain(tcp)),
        }
    }
}

/// The status a GET over `side` is answered with.
async fn get(side: Side, conf: &HttpCheck, address: SocketAddr) -> Result<u16, String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    let (mut send, connection) = http1::handshake(TokioIo::new(side))
        .await
        .map_err(|e| said(&e))?;
    // Ends when the sender is dropped.
    tokio::spawn(connection);
    let host = conf.host.clone().unwrap_or_else(|| address.to_string());
    let request = http::Request::get(conf.path.as_str())
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, "pushgate-health")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .map_err(|e| said(&e))?;
    let answer = send.send_request(request).await.map_err(|e| said(&e))?;
    Ok(answer.status().as_u16())
}

/// Connects for a check and says by the PROXY protocol that nobody is behind it.
#[derive(Debug)]
struct Local(&'static [u8]);

/// The connector of a check that begins with a PROXY protocol header.
fn local(conf: &Health) -> Option<Arc<dyn L4Connect + Send + Sync>> {
    conf.proxy_protocol?;
    Some(Arc::new(Local(header(conf))))
}

/// The PROXY protocol header of a check; empty where there is none.
fn header(conf: &Health) -> &'static [u8] {
    match conf.proxy_protocol {
        None => b"",
        Some(1) => b"PROXY UNKNOWN\r\n",
        Some(_) => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

#[async_trait]
impl L4Connect for Local {
    async fn connect(&self, to: &PingoraAddr) -> pingora::Result<Stream> {
        let failed = |e: std::io::Error| Error::because(ErrorType::ConnectError, "health check", e);
        let to = to.as_inet().copied();
        let to = to.ok_or_else(|| Error::explain(ErrorType::ConnectError, "no address"))?;
        let mut stream = TcpStream::connect(to).await.map_err(failed)?;
        stream.write_all(self.0).await.map_err(failed)?;
        Ok(stream.into())
    }
}

fn http_check(node: &Node, conf: &HttpCheck, timeout: Duration) -> HttpHealthCheck {
    let host = conf
        .host
        .clone()
        .unwrap_or_else(|| node.address.to_string());
    let mut check = HttpHealthCheck::new(&host, false);
    if let Ok(mut head) = RequestHeader::build("GET", conf.path.as_bytes(), None) {
        // `Host` was accepted by the configuration check; an odd one only fails the check.
        let _ = head.append_header("Host", &host);
        let _ = head.append_header("User-Agent", "pushgate-health");
        check.req = head;
    }
    check.peer_template.options.connection_timeout = Some(timeout);
    check.peer_template.options.read_timeout = Some(timeout);
    check.port_override = conf.port;
    let expected = conf.status;
    check.validator = Some(Box::new(move |answer| {
        if answer.status.as_u16() == expected {
            return Ok(());
        }
        Error::e_explain(
            ErrorType::HTTPStatus(answer.status.as_u16()),
            "unexpected status",
        )
    }));
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall() {
        let cases: &[(&str, &str, bool)] = &[
            // checks (g good, b bad), from healthy, with rise 2 and fall 3
            ("bb", "two bad are not enough", true),
            ("bbb", "three bad", false),
            ("bbgbb", "a good one between starts anew", true),
            ("bbbg", "one good is not enough", false),
            ("bbbgg", "two good", true),
            ("bbbgbg", "a bad one between starts anew", false),
        ];
        for (checks, name, healthy) in cases {
            let end = checks.chars().fold(
                Tally {
                    healthy: true,
                    against: 0,
                },
                |t, c| t.count(c == 'g', 2, 3),
            );
            assert_eq!(end.healthy, *healthy, "{name}");
        }
    }
}
