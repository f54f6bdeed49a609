//! Makes a flow from a [`Question`] of the command line.
//!
//! In: client, URL, cookies and headers. Out: the listener that the flow reaches, and the facts by which
//! plugins decide, as the edge would see them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use clap::Args;
use http::{HeaderName, HeaderValue, Uri};
use pushgate_plugins::api::{Flow, TlsFacts};
use pushgate_plugins::head::Head;
use pushgate_plugins::host;

use crate::clock;
use crate::config::{Config, Listener, Mode};

/// The flow that `explain` describes.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// URL that the client requests: `https://push.mycompany.com/lightstreamer`; `tcp://200.0.0.10:80` for
    /// bytes without HTTP.
    #[arg(long, value_name = "URL")]
    pub to: Uri,
    /// The client's address (the one in the PROXY protocol header if the listener accepts it).
    #[arg(long, value_name = "IP", default_value = "192.0.2.1")]
    pub from: IpAddr,
    /// Address of the URL's host name; needed if several listeners have its port.
    #[arg(long, value_name = "IP")]
    pub vip: Option<IpAddr>,
    /// Server name of the TLS handshake; by default the host of the URL.
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// Method of the request.
    #[arg(long, value_name = "WORD", default_value = "GET")]
    pub method: String,
    /// A cookie that the client sends, as `PUSHGATE=…`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub cookie: Vec<String>,
    /// Beginning of the request's body, as `LS_session=…`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub body: String,
    /// A header line that the client sends, as `X-Forwarded-For: 192.0.2.7`.
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
}

/// A question, resolved with the configuration.
pub struct ResolvedQuestion {
    /// Index of the listener in the file.
    pub listener: usize,
    /// The listener's address that the client reached, as written in the file.
    pub bind: SocketAddr,
    /// The address that the client reached.
    pub vip: SocketAddr,
    /// The host, normalised.
    pub host: String,
    /// Whether the client speaks TLS.
    pub tls: bool,
    /// Server name of the client's handshake.
    pub sni: Option<String>,
    client: SocketAddr,
    request: Head,
    body: String,
    random: u64,
}

impl ResolvedQuestion {
    /// Finds the listener that the client reaches, and the request as seen there.
    ///
    /// Errors: no or several listeners match; an illegal scheme, cookie or header.
    pub fn of(config: &Config, question: &Question) -> Result<ResolvedQuestion, String> {
        let tls = match question.to.scheme_str() {
            Some("https" | "wss" | "tls") => true,
            Some("http" | "ws" | "tcp") => false,
            _ => {
                return Err(format!(
                    "{}: expected a URL as https://push.mycompany.com/",
                    question.to
                ));
            }
        };
        let authority = question.to.authority().ok_or("the URL has no host")?;
        let host = host::normalise(authority.host()).into_owned();
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let (listener, bind) = reached(config, question.vip.or(literal), port, tls)?;
        let ip = question.vip.or(literal).unwrap_or(bind.ip());
        let sni = question
            .sni
            .clone()
            .or_else(|| literal.is_none().then(|| host.clone()));
        Ok(ResolvedQuestion {
            listener,
            bind,
            vip: SocketAddr::new(ip, port),
            tls,
            sni: sni.filter(|_| tls),
            client: SocketAddr::new(question.from, 50_000),
            request: request(question, authority.as_str())?,
            host,
            body: question.body.clone(),
            random: fastrand::u64(..),
        })
    }

    /// Returns the flow as plugins on `listener` see it.
    pub fn flow<'a>(&'a self, listener: &'a Listener) -> Flow<'a> {
        let sni = self.sni.as_deref();
        let ends_here = listener.tls.is_some();
        let http = listener.mode == Mode::Http;
        let facts = TlsFacts {
            sni,
            version: if ends_here { "TLSv1.3" } else { "" },
            client: None,
        };
        Flow {
            listener: &listener.name,
            client: self.client,
            peer: self.client,
            source: self.client.ip(),
            vip: self.vip,
            tls: self.tls.then_some(facts),
            host: if http {
                &self.host
            } else {
                sni.unwrap_or_default()
            },
            request: http.then_some(&self.request),
            body: self.body.as_bytes(),
            wall: clock::date(),
            now: Instant::now(),
            random: self.random,
            last: None,
        }
    }
}

/// Finds the listener behind an address: an exact bind before a wildcard, as in the kernel.
fn reached(
    config: &Config,
    vip: Option<IpAddr>,
    port: u16,
    tls: bool,
) -> Result<(usize, SocketAddr), String> {
    let all = config.listeners.iter().enumerate();
    let all = all.flat_map(|(i, l)| l.bind.iter().map(move |bind| (i, l, *bind)));
    let mut found: Vec<_> = all
        .filter(|(_, _, bind)| bind.port() == port)
        .filter(|(_, _, bind)| vip.is_none_or(|vip| bind.ip() == vip || bind.ip().is_unspecified()))
        .collect();
    if vip.is_some_and(|vip| found.iter().any(|(_, _, bind)| bind.ip() == vip)) {
        found.retain(|(_, _, bind)| Some(bind.ip()) == vip);
    }
    let speaks =
        |l: &Listener| l.mode == Mode::Tcp && (tls || l.tls.is_none()) || l.tls.is_some() == tls;
    if found.iter().any(|(_, l, _)| speaks(l)) {
        found.retain(|(_, l, _)| speaks(l));
    }
    match found.as_slice() {
        [] => {
            let vip = vip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            Err(format!(
                "no listener is bound to {}",
                SocketAddr::new(vip, port)
            ))
        }
        [(_, l, bind)] if !speaks(l) => {
            let (has, other) = if tls {
                ("plain", "http")
            } else {
                ("TLS", "https")
            };
            Err(format!(
                "listener {} at {bind} speaks {has}; expected an {other} URL",
                l.name
            ))
        }
        [(i, _, bind)] => Ok((*i, *bind)),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|(_, l, b)| format!("{} ({b})", l.name))
                .collect();
            Err(format!(
                "several listeners have port {port}: {}; choose one with --vip",
                names.join(", ")
            ))
        }
    }
}

fn request(question: &Question, authority: &str) -> Result<Head, String> {
    let target = question.to.path_and_query().map_or("/", |p| p.as_str());
    let cookies = question.cookie.iter().map(|c| Ok(("cookie", c.as_str())));
    let others = question.header.iter().map(|line| {
        let parts = line.split_once(':');
        parts.ok_or_else(|| format!("`{line}`: expected `Name: value`"))
    });
    let mut fields = vec![("host", authority.as_bytes())];
    for field in cookies.chain(others) {
        let (name, value) = field?;
        let (name, value) = (name.trim(), value.trim());
        if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err()
        {
            return Err(format!("`{name}` and its value make no header"));
        }
        fields.push((name, value.as_bytes()));
    }
    let made = Head::make_request(&question.method, target, fields);
    made.map_err(|e| format!("not a legal request: {e:?}"))
}
