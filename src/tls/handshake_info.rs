//! The facts of a handshake: server name, version, names of our certificate, the client's certificate.
//!
//! In: a finished handshake. Out: [`HandshakeInfo`], kept with the connection for plugins, routes and
//! the access log. Source: RFC 9110 §15.5.20 (421); RFC 4514 (names as text).

use std::sync::Arc;

use openssl::hash::MessageDigest;
use openssl::ssl::{NameType, SslRef};
use openssl::x509::{X509NameRef, X509Ref, X509VerifyResult};
use pushgate_plugins::api::{ClientFacts, TlsFacts};

use super::context::names_index;

/// The facts of a finished handshake.
#[derive(Debug, Default)]
pub struct HandshakeInfo {
    /// Server name the client sent.
    pub sni: Option<String>,
    /// Protocol version as OpenSSL names it; empty if TLS is passed through.
    pub version: &'static str,
    /// Names of the certificates in the context; the client got one of these certificates.
    pub names: Arc<[String]>,
    /// The client's certificate, if it sent one.
    pub client: Option<ClientCertificate>,
    /// Whether TLS ended at a load balancer in front, as it reported. Its certificate is unknown here.
    pub in_front: bool,
}

/// A client's certificate, its names as text.
#[derive(Debug)]
pub struct ClientCertificate {
    subject: String,
    issuer: String,
    serial: String,
    sans: Vec<String>,
    fingerprint: String,
    failure: Option<&'static str>,
}

impl HandshakeInfo {
    /// Reads the facts of a finished handshake.
    pub fn of(ssl: &SslRef) -> HandshakeInfo {
        let names = names_index().ok();
        let names = names.and_then(|i| ssl.ssl_context().ex_data(i).cloned());
        HandshakeInfo {
            sni: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
            version: ssl.version_str(),
            names: names.unwrap_or_default(),
            client: ssl
                .peer_certificate()
                .map(|leaf| ClientCertificate::of(&leaf, ssl.verify_result())),
            in_front: false,
        }
    }

    /// Whether our certificate covers `host` (lower case, without port). Always true if TLS ended at a
    /// load balancer in front, which is responsible for its own certificate.
    pub fn covers(&self, host: &str) -> bool {
        if self.in_front {
            return true;
        }
        let wildcard = || {
            let (label, parent) = host.split_once('.')?;
            (!label.is_empty()).then_some(parent)
        };
        let parent = wildcard();
        self.names.iter().any(|name| {
            name == host
                || name
                    .strip_prefix("*.")
                    .is_some_and(|zone| Some(zone) == parent)
        })
    }

    /// Returns these facts as plugins see them.
    pub fn facts(&self) -> TlsFacts<'_> {
        TlsFacts {
            sni: self.sni.as_deref(),
            version: self.version,
            client: self.client.as_ref().map(ClientCertificate::facts),
        }
    }
}

impl ClientCertificate {
    fn of(leaf: &X509Ref, verdict: X509VerifyResult) -> ClientCertificate {
        let failure = verdict != X509VerifyResult::OK;
        let digest = leaf.digest(MessageDigest::sha256());
        let serial = leaf.serial_number().to_bn().and_then(|n| n.to_hex_str());
        let sans = leaf.subject_alt_names();
        let sans = sans.iter().flatten().filter_map(|san| {
            let dns = san.dnsname().map(|s| format!("DNS:{}", escaped(s)));
            let mail = || san.email().map(|s| format!("email:{}", escaped(s)));
            let uri = || san.uri().map(|s| format!("URI:{}", escaped(s)));
            dns.or_else(mail).or_else(uri)
        });
        ClientCertificate {
            subject: text(leaf.subject_name()),
            issuer: text(leaf.issuer_name()),
            serial: serial.map_or_else(|_| String::new(), |s| s.to_string()),
            sans: sans.collect(),
            fingerprint: digest.map_or_else(|_| String::new(), |d| hex(&d)),
            failure: failure.then(|| verdict.error_string()),
        }
    }

    fn facts(&self) -> ClientFacts<'_> {
        ClientFacts {
            subject: &self.subject,
            issuer: &self.issuer,
            serial: &self.serial,
            sans: &self.sans,
            fingerprint: &self.fingerprint,
            failure: self.failure,
        }
    }
}

/// Formats a name, last part first: `CN=alice,O=Example` (RFC 4514 §2).
fn text(name: &X509NameRef) -> String {
    let mut parts: Vec<String> = name
        .entries()
        .map(|entry| {
            let key = entry.object().nid().short_name().unwrap_or("OID");
            let value = entry.data().to_string().unwrap_or_default();
            format!("{key}={}", escaped(&value))
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// Escapes a value as RFC 4514 §2.4 says. Bytes that a header must not carry become hexadecimal, so
/// that a name in a certificate cannot add a line to a head.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (i, byte) in value.bytes().enumerate() {
        let edge = i == 0 || i + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' ' if edge => out.push_str("\\ "),
            b'#' if i == 0 => out.push_str("\\#"),
            0x20..=0x7e => out.push(char::from(byte)),
            other => out.push_str(&format!("\\{other:02X}")),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a wildcard stands for exactly one label. Source: RFC 9525 §6.3.
    #[test]
    fn a_wildcard_covers_one_label() {
        let shown = HandshakeInfo {
            names: Arc::from(["*.a.example".to_owned(), "b.example".to_owned()]),
            ..HandshakeInfo::default()
        };
        for (host, expected) in [
            ("a.example", false),
            (".a.example", false),
            ("x.y.a.example", false),
            ("c.example", false),
            ("x.a.example", true),
            ("b.example", true),
        ] {
            assert_eq!(shown.covers(host), expected, "{host}");
        }
        let in_front = HandshakeInfo {
            in_front: true,
            ..HandshakeInfo::default()
        };
        assert!(in_front.covers("c.example"));
    }

    /// Aim: a name in a certificate cannot end a header line. Source: RFC 4514 §2.4.
    #[test]
    fn names_are_escaped() {
        for (raw, expected) in [
            ("alice", "alice"),
            (" a b ", "\\ a b\\ "),
            ("#1", "\\#1"),
            ("a,CN=root", "a\\,CN\\=root"),
            ("a\r\nX: y", "a\\0D\\0AX: y"),
            ("ü", "\\C3\\BC"),
        ] {
            assert_eq!(escaped(raw), expected, "{raw:?}");
        }
    }
}
