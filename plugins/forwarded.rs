//! Passes the client's address to the node: `X-Forwarded-*`, `X-Real-IP` and `Forwarded`.
//!
//! In: the flow's addresses, TLS and host. Out: the request's head, without any such header that an untrusted
//! sender wrote. At layer 4 use the PROXY protocol instead.
//! Source: Lightstreamer clustering §1 ("X-Forwarded headers"); RFC 7239; FAULTS D14, D15.

mod edit;

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Deserialize;

use crate::api::{Assignment, EditError, Flow, HeadEditor, Plugin, visible};
use crate::context::{Build, Mode, PluginError};
use crate::head::Edits;
use crate::spelling::is_forwarding;
use crate::trust::{MAX_HOPS, Trust, X_FORWARDED_FOR};
use crate::unix::{ShownIp, is_unix};

// Lower case, as the edge has always sent them to nodes.
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_PORT: &str = "x-forwarded-port";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_REAL_IP: &str = "x-real-ip";
const FORWARDED: &str = "forwarded";
const X_REQUEST_ID: &str = "x-request-id";

/// Longest id of a trusted sender that is kept, in bytes.
const MAX_ID: usize = 128;

/// Block `forwarded:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Senders whose own headers are kept and extended; default none.
    #[serde(default)]
    pub trust: Trust,
    /// `X-Forwarded-For`, the client's address; default on.
    #[serde(default = "yes")]
    pub x_forwarded_for: bool,
    /// `X-Forwarded-Proto`, `http` or `https`; default on.
    #[serde(default = "yes")]
    pub x_forwarded_proto: bool,
    /// `X-Forwarded-Port`, the port that the client reached; default on.
    #[serde(default = "yes")]
    pub x_forwarded_port: bool,
    /// `X-Forwarded-Host`, the host with port as the client sent it; default on.
    #[serde(default = "yes")]
    pub x_forwarded_host: bool,
    /// `X-Real-IP`, the client behind the trusted senders; default off.
    #[serde(default)]
    pub x_real_ip: bool,
    /// `Forwarded` (RFC 7239) with `for`, `host` and `proto`; default off.
    #[serde(default)]
    pub forwarded: bool,
    /// `X-Request-Id`, a trusted sender's or a new one; default off.
    #[serde(default)]
    pub request_id: bool,
}

fn yes() -> bool {
    true
}

struct Forwarded {
    on: Config,
}

impl Config {
    /// Builds the plugin. Errors: mode tcp.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        if on.mode == Mode::Tcp {
            let why =
                "headers need mode http; at layer 4 `proxy_protocol` passes the client's address";
            return Err(vec![PluginError::new(None::<String>, why)]);
        }
        let plugin = Plugin::editor(Forwarded { on: self.clone() });
        Ok(plugin.trusting(self.trust.clone()))
    }
}

impl HeadEditor for Forwarded {
    fn request(
        &self,
        flow: &Flow<'_>,
        _: &Assignment<'_>,
        edits: &mut Edits,
    ) -> Result<(), EditError> {
        let sender = flow.client.ip().to_canonical();
        let trusted = self.on.trust.contains(sender);
        // The core has already removed the hop-by-hop headers. The next hop would remove every header that
        // `Connection` still names (FAULTS D14).
        edit::unlist(edits, is_hop_proof)?;
        if !trusted {
            edits.retain(|name, _| !is_forwarding(name.as_bytes()));
        }
        self.client(flow, sender, edits)?;
        if self.on.request_id && !(trusted && has_id(edits)) {
            let (time, random) = (since_1970(flow.wall), flow.random);
            edits.set_fmt(X_REQUEST_ID, format_args!("{time:016x}{random:016x}"))?;
        }
        let host = host(flow);
        let proto = if flow.tls.is_some() { "https" } else { "http" };
        if self.on.forwarded {
            let element = Element {
                sender,
                host,
                proto,
            };
            edit::append_to_list(edits, FORWARDED, format_args!("{element}"), usize::MAX)?;
        }
        let told = |edits: &Edits, name: &str| trusted && edits.contains(name);
        let scheme_told = told(edits, X_FORWARDED_PROTO);
        if self.on.x_forwarded_proto && !scheme_told {
            edits.set(X_FORWARDED_PROTO, proto)?;
        }
        // The trusted sender gave a scheme without a port. The edge's own port would contradict it.
        let has_port = !is_unix(flow.vip.ip());
        let port_told = scheme_told || told(edits, X_FORWARDED_PORT);
        if self.on.x_forwarded_port && has_port && !port_told {
            edits.set_fmt(X_FORWARDED_PORT, format_args!("{}", flow.vip.port()))?;
        }
        if self.on.x_forwarded_host && !host.is_empty() && !told(edits, X_FORWARDED_HOST) {
            edits.set(X_FORWARDED_HOST, host)?;
        }
        Ok(())
    }
}

impl Forwarded {
    fn client(&self, flow: &Flow<'_>, sender: IpAddr, edits: &mut Edits) -> Result<(), EditError> {
        if self.on.x_forwarded_for {
            let sender = ShownIp(sender);
            let element = format_args!("{sender}");
            edit::append_to_list(edits, X_FORWARDED_FOR, element, MAX_HOPS)?;
        }
        if self.on.x_real_ip {
            // Uses the client's head: `edits` already contains the sender added above.
            let client = ShownIp(self.on.trust.client(flow));
            edits.set_fmt(X_REAL_IP, format_args!("{client}"))?;
        }
        Ok(())
    }
}

/// Whether no client may have the next hop remove this header.
fn is_hop_proof(name: &[u8]) -> bool {
    is_forwarding(name) || name.eq_ignore_ascii_case(X_REQUEST_ID.as_bytes())
}

/// Whether the head has one id that is text of a fair length.
fn has_id(edits: &Edits) -> bool {
    let mut ids = edits.values(X_REQUEST_ID);
    let is_fair = |id: &[u8]| (1..=MAX_ID).contains(&id.len()) && visible(id).is_some();
    ids.next().is_some_and(is_fair) && ids.next().is_none()
}

/// Nanoseconds, which make an id unique together with the flow's random number.
fn since_1970(date: SystemTime) -> u64 {
    let since = date.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// Returns host and port as the client sent them, or the flow's host if they are not a plain host name.
fn host<'a>(flow: &Flow<'a>) -> &'a str {
    let sent = flow
        .request
        .and_then(|request| match request.value("host") {
            Some(value) => visible(value),
            None => request.authority(),
        });
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%[]:".contains(&b);
    let sent = sent.filter(|s| !s.is_empty() && s.bytes().all(plain));
    sent.unwrap_or(flow.host)
}

/// One element of `Forwarded`: an IPv6 address in brackets and quotes, a host with a port in quotes
/// (RFC 7239 §4, §6).
struct Element<'a> {
    sender: IpAddr,
    host: &'a str,
    proto: &'a str,
}

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sender {
            // RFC 7239 §6.2.
            ip if is_unix(ip) => f.write_str("for=unknown")?,
            IpAddr::V4(a) => write!(f, "for={a}")?,
            IpAddr::V6(a) => write!(f, "for=\"[{a}]\"")?,
        }
        let host = self.host;
        if !host.is_empty() {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
            let quote = if host.bytes().all(token) { "" } else { "\"" };
            write!(f, ";host={quote}{host}{quote}")?;
        }
        write!(f, ";proto={}", self.proto)
    }
}

#[cfg(test)]
mod tests;
