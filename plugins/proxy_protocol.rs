//! Passes the client's address to the node in the PROXY protocol: the first bytes of each connection.
//!
//! In: the flow's addresses, TLS facts and host. Out: a whole header of version 1 or 2, before any byte of
//! the client. An upstream connection belongs to one client, so one header is true for all its requests.
//! Codec: crate `ppp`.
//! Source: PROXY protocol §2 (HAProxy's specification, cited by Lightstreamer clustering §1); FAULTS D42.

use std::net::SocketAddr;

use ppp::v2::{Addresses, Builder, Command, Protocol, Type, Version};
use serde::Deserialize;

use crate::api::{Flow, Plugin, Preamble};
use crate::bounds::Whole;
use crate::context::{Build, PluginError};
use crate::unix::is_unix;

/// Block `proxy_protocol:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 1 (text) or 2 (binary); default 2.
    #[serde(default = "two", deserialize_with = "Whole::<1, 2>::read")]
    pub version: u8,
    /// With version 2: adds the requested name (`PP2_TYPE_AUTHORITY`); default on.
    #[serde(default = "yes")]
    pub authority: bool,
    /// With version 2: adds the TLS version of the client's connection (`PP2_TYPE_SSL`) if TLS ends here;
    /// default on.
    #[serde(default = "yes")]
    pub ssl: bool,
}

fn two() -> u8 {
    2
}

fn yes() -> bool {
    true
}

struct ProxyProtocol(Config);

impl Config {
    /// Builds the plugin. Errors: none.
    pub fn build(&self, _: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        Ok(Plugin::preamble(ProxyProtocol(self.clone())))
    }
}

impl Preamble for ProxyProtocol {
    fn preamble(&self, flow: &Flow<'_>, out: &mut Vec<u8>) {
        // Of a Unix socket there is no address that the header has room for.
        let is_local = is_unix(flow.client.ip()) || is_unix(flow.vip.ip());
        let (client, vip) = one_family(flow.client, flow.vip);
        if is_local && self.0.version == 1 {
            out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        } else if self.0.version == 1 {
            out.extend_from_slice(version_1(client, vip).as_bytes());
        } else if let Ok(header) = self.version_2(flow, (!is_local).then_some((client, vip))) {
            // Building cannot fail: the parts are far below the 65,535 bytes that a header may have.
            out.extend_from_slice(&header);
        }
    }
}

impl ProxyProtocol {
    fn version_2(
        &self,
        flow: &Flow<'_>,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) -> std::io::Result<Vec<u8>> {
        let command = Version::Two | Command::Proxy;
        let mut header = match addresses {
            Some(both) => Builder::with_addresses(command, Protocol::Stream, both),
            None => Builder::with_addresses(command, Protocol::Unspecified, Addresses::Unspecified),
        };
        let name = match flow.tls.and_then(|t| t.sni) {
            Some(sni) => sni,
            None => flow.host,
        };
        // An address is no name: a receiver may refuse it.
        let named = !name.is_empty() && !name.starts_with('[') && name.len() <= 255;
        if self.0.authority && named {
            header = header.write_tlv(Type::Authority, name.as_bytes())?;
        }
        if let Some(version) = flow
            .tls
            .map(|t| t.version)
            .filter(|v| self.0.ssl && !v.is_empty())
        {
            let client = flow.tls.and_then(|t| t.client);
            let shown = if client.is_some() { CERTIFICATE } else { 0 };
            let verified = client.filter(|c| c.failure.is_none());
            // `verify` is 0 only if the client sent a certificate that was verified (§2.2.6).
            let mut ssl = vec![BY_TLS | shown, 0, 0, 0, u8::from(verified.is_none())];
            sub_tlv(&mut ssl, Type::SSLVersion, version);
            if let Some(name) = verified.and_then(|c| common_name(c.subject)) {
                sub_tlv(&mut ssl, Type::SSLCommonName, name);
            }
            header = header.write_tlv(Type::SSL, &ssl)?;
        }
        header.build()
    }
}

/// `PP2_CLIENT_SSL`.
const BY_TLS: u8 = 0x01;
/// `PP2_CLIENT_CERT_CONN` and `PP2_CLIENT_CERT_SESS`.
const CERTIFICATE: u8 = 0x02 | 0x04;

fn sub_tlv(out: &mut Vec<u8>, kind: Type, text: &str) {
    out.push(kind as u8);
    // Both kinds are short: a version, and a name of at most 255 bytes.
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Returns the common name in a subject as RFC 4514 writes it. `None`: no common name, or one with escapes.
/// Cut at the wrong comma it would name somebody else.
fn common_name(subject: &str) -> Option<&str> {
    let plain = Some(subject).filter(|s| !s.contains('\\'))?;
    let name = plain.split(',').find_map(|part| part.strip_prefix("CN="))?;
    Some(name).filter(|n| !n.is_empty() && n.len() <= 255)
}

/// Returns both addresses in one family: IPv4 if both can be, else IPv6 (FAULTS D42, v4-mapped).
fn one_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (a4, b4) = (a.ip().to_canonical(), b.ip().to_canonical());
    let six = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6,
    };
    let (a_ip, b_ip) = if a4.is_ipv4() && b4.is_ipv4() {
        (a4, b4)
    } else {
        (six(a4), six(b4))
    };
    (
        SocketAddr::new(a_ip, a.port()),
        SocketAddr::new(b_ip, b.port()),
    )
}

fn version_1(client: SocketAddr, vip: SocketAddr) -> String {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        client.ip(),
        vip.ip(),
        client.port(),
        vip.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TlsFacts;
    use crate::testing::Facts;

    fn header(config: Config, client: &str, vip: &str, tls: Option<TlsFacts<'static>>) -> Vec<u8> {
        let facts = Facts {
            vip: vip.parse().expect("address"),
            ..Facts::default()
        }
        .client(client);
        let mut out = Vec::new();
        ProxyProtocol(config).preamble(
            &Flow {
                tls,
                ..facts.flow(None)
            },
            &mut out,
        );
        out
    }

    fn config(version: u8) -> Config {
        Config {
            version,
            authority: true,
            ssl: true,
        }
    }

    #[test]
    fn version_1_is_text() {
        for (client, vip, expected) in [
            (
                "192.0.2.1:5",
                "200.0.0.10:80",
                "PROXY TCP4 192.0.2.1 200.0.0.10 5 80\r\n",
            ),
            (
                "[2001:db8::1]:5",
                "[2001:db8::2]:80",
                "PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n",
            ),
            (
                "[::ffff:192.0.2.1]:5",
                "200.0.0.10:80",
                "PROXY TCP4 192.0.2.1 200.0.0.10 5 80\r\n",
            ),
        ] {
            assert_eq!(header(config(1), client, vip, None), expected.as_bytes());
        }
    }

    /// Fails if a parser of the specification does not read back what the plugin writes.
    #[test]
    fn version_2_is_read_back() {
        let tls = TlsFacts {
            sni: Some("push.mycompany.com"),
            version: "TLSv1.3",
            client: None,
        };
        let bytes = header(config(2), "192.0.2.1:50000", "200.0.0.10:443", Some(tls));
        let read = ppp::v2::Header::try_from(bytes.as_slice()).expect("a header");
        assert_eq!(read.len(), bytes.len());
        let expected: (SocketAddr, SocketAddr) = (
            "192.0.2.1:50000".parse().expect("address"),
            "200.0.0.10:443".parse().expect("address"),
        );
        assert_eq!(read.addresses, expected.into());
        let tlvs: Vec<_> = read.tlvs().map(|t| t.expect("a TLV")).collect();
        assert_eq!(
            (tlvs[0].kind, &tlvs[0].value[..]),
            (2, &b"push.mycompany.com"[..])
        );
        assert_eq!(
            (tlvs[1].kind, &tlvs[1].value[..]),
            (0x20, &b"\x01\0\0\0\x01\x21\0\x07TLSv1.3"[..])
        );
    }

    /// §2.2.6: a verified certificate is passed with its name, an unverified one only as shown.
    #[test]
    fn client_certificates() {
        let client = crate::api::ClientFacts {
            subject: "CN=alice,O=Example",
            issuer: "",
            serial: "",
            sans: &[],
            fingerprint: "",
            failure: None,
        };
        let told = |client| {
            let tls = TlsFacts {
                sni: None,
                version: "TLSv1.3",
                client,
            };
            let quiet = Config {
                authority: false,
                ..config(2)
            };
            header(quiet, "192.0.2.1:5", "200.0.0.10:443", Some(tls))[31..].to_vec()
        };
        let doubted = crate::api::ClientFacts {
            failure: Some("expired"),
            ..client
        };
        let odd = crate::api::ClientFacts {
            subject: "CN=a\\,CN\\=root,O=b",
            ..client
        };
        assert_eq!(told(None), b"\x01\0\0\0\x01\x21\0\x07TLSv1.3");
        assert_eq!(told(Some(doubted)), b"\x07\0\0\0\x01\x21\0\x07TLSv1.3");
        assert_eq!(told(Some(odd)), b"\x07\0\0\0\0\x21\0\x07TLSv1.3");
        let alice = b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x05alice";
        assert_eq!(told(Some(client)), alice);
    }

    /// Fails if an IPv6 literal, which is no server name, is written as one.
    #[test]
    fn an_address_is_no_authority() {
        for (host, bytes) in [("a.example", 12 + 3 + 9), ("[2001:db8::1]", 12), ("", 12)] {
            let facts = Facts {
                host,
                ..Facts::default()
            };
            let mut out = Vec::new();
            ProxyProtocol(config(2)).preamble(&facts.flow(None), &mut out);
            assert_eq!(out.len(), 16 + bytes, "{host}");
        }
    }

    #[test]
    fn disabled_or_unknown_facts_are_left_out() {
        let quiet = Config {
            version: 2,
            authority: false,
            ssl: false,
        };
        let tls = TlsFacts {
            sni: Some("a"),
            version: "TLSv1.3",
            client: None,
        };
        assert_eq!(
            header(quiet, "192.0.2.1:5", "200.0.0.10:80", Some(tls)).len(),
            16 + 12
        );
        let through = TlsFacts {
            sni: Some("a"),
            version: "",
            client: None,
        };
        let passed = header(
            config(2),
            "[2001:db8::1]:5",
            "[2001:db8::2]:80",
            Some(through),
        );
        assert_eq!(passed.len(), 16 + 36 + 3 + 1);
    }
}
