//! What TLS is told: session tickets, the rules of a handshake, TLS to nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use pushgate_plugins::bounds::AboveZero;
use serde::Deserialize;

use super::units::Span;
use super::{bounds, defaults};

/// Keys of session tickets: one ring for all listeners of a profile.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Tickets {
    /// A new key seals from then on; without `file`.
    #[serde(
        default = "defaults::ticket_rotate",
        deserialize_with = "AboveZero::read"
    )]
    pub rotate: Span,
    /// Older keys that still open tickets; without `file`.
    #[serde(
        default = "defaults::ticket_keep",
        deserialize_with = "bounds::TicketKeys::read"
    )]
    pub keep: usize,
    /// Keys that several edges share; read again when it changes.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

impl Default for Tickets {
    fn default() -> Self {
        Tickets {
            rotate: defaults::TICKET_ROTATE,
            keep: defaults::TICKET_KEEP,
            file: None,
        }
    }
}

/// TLS of a listener.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Names of certificates it may serve; the first is the default of every VIP of the listener.
    pub certificates: Vec<String>,
    /// Default certificate of single VIPs (`200.0.0.1:443: push1`), for clients without SNI.
    #[serde(default)]
    pub by_vip: BTreeMap<SocketAddr, String>,
    /// Refuses a client whose server name no certificate covers.
    #[serde(default)]
    pub strict_sni: bool,
    /// Offers HTTP/2 by ALPN.
    #[serde(default = "defaults::yes")]
    pub h2: bool,
    /// Takes WebSockets over HTTP/2 (RFC 8441); needs `h2`.
    #[serde(default)]
    pub h2_websocket: bool,
    /// Layer 4: protocols offered by ALPN, best first, which the nodes speak.
    #[serde(default)]
    pub alpn: Option<Protocols>,
    /// Versions, ciphers and groups that belong together.
    #[serde(default)]
    pub profile: Profile,
    /// Lowest version, where it differs from the profile's.
    #[serde(default)]
    pub min_version: Option<Version>,
    /// Highest version; absent: the highest there is.
    #[serde(default)]
    pub max_version: Option<Version>,
    /// Ciphers of TLS 1.2 by OpenSSL's names, best first, instead of the profile's.
    #[serde(default)]
    pub ciphers: Option<Vec<String>>,
    /// Groups of the key exchange by OpenSSL's names, best first, instead of the profile's.
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    /// Authorities (PEM) of client certificates; absent: none are asked for.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client must have a certificate of `client_ca`.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
}

/// Names of protocols (RFC 7301), best first: one, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocols(pub Vec<String>);

impl<'de> Deserialize<'de> for Protocols {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> serde::de::Visitor<'de> for V {
            type Value = Protocols;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a protocol's name, such as `h2`, or a list of them")
            }
            fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Protocols, E> {
                Ok(Protocols(vec![one.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                seq: A,
            ) -> Result<Protocols, A::Error> {
                let all =
                    Deserialize::deserialize(serde::de::value::SeqAccessDeserializer::new(seq));
                all.map(Protocols)
            }
        }
        d.deserialize_any(V)
    }
}

/// Rules of a handshake that belong together (Mozilla Server Side TLS 5).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// TLS 1.3 only.
    Modern,
    /// TLS 1.2 with forward secrecy and authenticated ciphers, and 1.3.
    #[default]
    Intermediate,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// By hand, because `1.2` is a number to YAML.
impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl serde::de::Visitor<'_> for V {
            type Value = Version;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`1.2` or `1.3`")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<Version, E> {
                match s {
                    "1.2" => Ok(Version::Tls12),
                    "1.3" => Ok(Version::Tls13),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(s), &self)),
                }
            }
            fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Version, E> {
                self.visit_str(&n.to_string())
            }
        }
        d.deserialize_any(V)
    }
}

/// Whether a client must have a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Without a good one the handshake fails.
    #[default]
    Required,
    /// Asked for; the plugin `client_certificate` tells the node whether there was a good one.
    Optional,
}

/// TLS towards a node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NodeTls {
    /// Authorities (PEM) that may have issued the node's certificate; absent: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Name asked for by SNI and demanded of the certificate; absent: the node's IP address.
    #[serde(default)]
    pub server_name: Option<String>,
    /// One of `certificates`, shown to a node that asks for one.
    #[serde(default)]
    pub client_certificate: Option<String>,
    /// Verifies the node's certificate and name.
    #[serde(default = "defaults::yes")]
    pub verify: bool,
}
