//! Tells the node who the client is: `X-Forwarded-*`, `X-Real-IP` and `Forwarded`.
//!
//! In: the flow's addresses, TLS and host. Out: the request's head, in which nothing of the kind
//! is left that an untrusted sender wrote. At layer 4 the PROXY protocol says the same.
//! Source: Lightstreamer clustering §1 ("X-Forwarded headers"); RFC 7239; FAULTS D14, D15.

mod edit;

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use http::{HeaderName, HeaderValue};
use pingora_http::RequestHeader;
use serde::Deserialize;

use crate::api::{Assignment, EditError, Flow, Plugin};
use crate::context::{Build, Fault, Mode};
use crate::trust::{MAX_HOPS, Trust, X_FORWARDED_FOR};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Block `forwarded:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Senders whose own headers are kept and added to; default none.
    #[serde(default)]
    pub trust: Trust,
    /// `X-Forwarded-For`, the client's address; default on.
    #[serde(default = "yes")]
    pub x_forwarded_for: bool,
    /// `X-Forwarded-Proto`, `http` or `https`; default on.
    #[serde(default = "yes")]
    pub x_forwarded_proto: bool,
    /// `X-Forwarded-Port`, the port the client reached; default on.
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
}

fn yes() -> bool {
    true
}

struct Forwarded {
    on: Config,
}

impl Config {
    /// Builds the plugin. Errors: mode tcp.
    pub fn build(&self, on: &Build<'_>) -> Result<Box<dyn Plugin>, Vec<Fault>> {
        if on.mode == Mode::Tcp {
            let why =
                "headers need mode http; at layer 4 the PROXY protocol tells the client's address";
            return Err(vec![Fault::new(None::<String>, why)]);
        }
        Ok(Box::new(Forwarded { on: self.clone() }))
    }
}

impl Plugin for Forwarded {
    fn name(&self) -> &'static str {
        "forwarded"
    }

    fn trusted_client(&self, flow: &Flow<'_>) -> Option<IpAddr> {
        self.on.trust.told(flow)
    }

    fn request(
        &self,
        flow: &Flow<'_>,
        _: &Assignment<'_>,
        head: &mut RequestHeader,
    ) -> Result<(), EditError> {
        let sender = flow.client.ip().to_canonical();
        let trusted = self.on.trust.contains(sender);
        // After Pingora took the hop-by-hop headers away; what `Connection` still names would be
        // taken away by the next hop (FAULTS D14).
        edit::unlist(head, is_ours)?;
        if !trusted {
            edit::remove(head, is_ours);
        }
        self.client(flow, sender, head)?;
        let proto = if flow.tls.is_some() { "https" } else { "http" };
        let set = |head: &mut RequestHeader, name: HeaderName, value: HeaderValue| {
            if trusted && head.headers.contains_key(&name) {
                return Ok(());
            }
            head.insert_header(name, value)
        };
        let host = host(flow, head);
        if self.on.forwarded {
            let element = element(sender, proto, &host);
            edit::append_to_list(head, FORWARDED, &element, usize::MAX)?;
        }
        let scheme_told = trusted && head.headers.contains_key(&X_FORWARDED_PROTO);
        if self.on.x_forwarded_proto {
            set(head, X_FORWARDED_PROTO, HeaderValue::from_static(proto))?;
        }
        // A trusted sender's scheme without its port: our port would contradict it.
        if self.on.x_forwarded_port && !scheme_told {
            set(head, X_FORWARDED_PORT, flow.vip.port().into())?;
        }
        if self.on.x_forwarded_host && !host.is_empty() {
            set(head, X_FORWARDED_HOST, HeaderValue::try_from(host)?)?;
        }
        Ok(())
    }
}

impl Forwarded {
    fn client(
        &self,
        flow: &Flow<'_>,
        sender: IpAddr,
        head: &mut RequestHeader,
    ) -> Result<(), EditError> {
        if self.on.x_forwarded_for {
            edit::append_to_list(head, X_FORWARDED_FOR, &sender.to_string(), MAX_HOPS)?;
        }
        if self.on.x_real_ip {
            // From the flow's own head: ours has the sender added by now.
            let client = self.on.trust.client(flow).to_string();
            head.insert_header(X_REAL_IP, HeaderValue::try_from(client)?)?;
        }
        Ok(())
    }
}

/// Whether `name` belongs to those only we and trusted senders may write. `_` counts as `-`:
/// servers that make variables of headers cannot tell `X_Forwarded_For` from ours.
fn is_ours(name: &[u8]) -> bool {
    let same = |want: &[u8], got: &[u8]| {
        let dashed = |b: &u8| {
            if *b == b'_' {
                b'-'
            } else {
                b.to_ascii_lowercase()
            }
        };
        got.iter().map(dashed).eq(want.iter().copied())
    };
    let prefix = b"x-forwarded";
    same(b"forwarded", name)
        || same(b"x-real-ip", name)
        || name.get(..prefix.len()).is_some_and(|p| same(prefix, p))
}

/// Host and port as the client sent them; the flow's host where that is no plain host name.
fn host(flow: &Flow<'_>, head: &RequestHeader) -> String {
    let request = flow.request.unwrap_or(head);
    let sent = match request.headers.get(HOST) {
        Some(v) => v.to_str().unwrap_or(""),
        None => request.uri.authority().map_or("", |a| a.as_str()),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%[]:".contains(&b);
    if !sent.is_empty() && sent.bytes().all(plain) {
        sent.to_owned()
    } else {
        flow.host.to_owned()
    }
}

/// One element of `Forwarded`: IPv6 in brackets and quotes, a host with a port in quotes
/// (RFC 7239 §4, §6).
fn element(sender: IpAddr, proto: &str, host: &str) -> String {
    let mut s = match sender {
        IpAddr::V4(a) => format!("for={a}"),
        IpAddr::V6(a) => format!("for=\"[{a}]\""),
    };
    if !host.is_empty() {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
        let quote = if host.bytes().all(token) { "" } else { "\"" };
        write!(s, ";host={quote}{host}{quote}").expect("a String takes all");
    }
    s.push_str(";proto=");
    s.push_str(proto);
    s
}

#[cfg(test)]
mod tests;
