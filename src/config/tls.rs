//! The blocks of TLS: session tickets, handshakes with clients, TLS towards nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use openssl::ssl::{SslContext, SslMethod};
use pushgate_plugins::bounds::AboveZero;
use serde::Deserialize;

use super::units::Span;
use super::{bounds, defaults};

/// Keys of session tickets: one ring for all listeners.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Tickets {
    /// How long a key seals tickets; ignored with `file`.
    #[serde(
        default = "defaults::ticket_rotate",
        deserialize_with = "AboveZero::read"
    )]
    pub rotate: Span,
    /// Most older keys that still open tickets, while these live; ignored with `file`.
    #[serde(
        default = "defaults::ticket_keep",
        deserialize_with = "bounds::TicketKeys::read"
    )]
    pub keep: usize,
    /// File of keys that several edges share; read again when it changes.
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
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Names of certificates it may serve; the first is the default of VIPs that `by_vip` does not name.
    pub certificates: Vec<String>,
    /// Default certificate of single VIPs (`200.0.0.1:443: push1`), for clients without SNI.
    #[serde(default)]
    pub by_vip: BTreeMap<SocketAddr, String>,
    /// What chooses the certificate.
    #[serde(default)]
    pub choose: Choose,
    /// Refuses a client whose server name no certificate covers.
    #[serde(default)]
    pub strict_sni: bool,
    /// Offers HTTP/2 by ALPN.
    #[serde(default = "defaults::yes")]
    pub h2: bool,
    /// Takes WebSockets over HTTP/2 (RFC 8441); needs `h2`.
    #[serde(default)]
    pub h2_websocket: bool,
    /// Layer 4: protocols that the nodes speak, accepted by ALPN, best first.
    #[serde(default)]
    pub alpn: Option<Protocols>,
    /// Which versions are accepted.
    #[serde(default)]
    pub profile: Profile,
    /// Lowest version; absent: the profile's.
    #[serde(default)]
    pub min_version: Option<Version>,
    /// Highest version; absent: the highest of OpenSSL.
    #[serde(default)]
    pub max_version: Option<Version>,
    /// Ciphers of TLS 1.2 by OpenSSL's names, best first; absent: Mozilla's intermediate ones with ECDHE.
    #[serde(default)]
    pub ciphers: Option<Vec<String>>,
    /// Groups of the key exchange by OpenSSL's names, best first; absent: four, the same in each profile.
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    /// Authorities (PEM) of client certificates; absent: no client certificate is asked for.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Revocation lists (PEM or DER) of the authorities in `client_ca`.
    #[serde(default)]
    pub client_crl: Option<PathBuf>,
    /// Whether a client must have a certificate of `client_ca`.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
}

/// Returns those of the default groups that OpenSSL has: a distribution's that is older than 3.5 lacks the hybrid.
pub fn default_groups() -> &'static [&'static str] {
    static KNOWN: OnceLock<Vec<&'static str>> = OnceLock::new();
    let known = |group: &&str| {
        SslContext::builder(SslMethod::tls_server())
            .is_ok_and(|mut context| context.set_groups_list(group).is_ok())
    };
    KNOWN.get_or_init(|| defaults::GROUPS.into_iter().filter(known).collect())
}

/// What chooses the certificate of a handshake.
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    /// The client's server name; without one that a certificate covers, the address that the client reached.
    #[default]
    Name,
    /// The address that the client reached, whatever name it asks for.
    Vip,
}

/// Names of protocols (RFC 7301), best first. In the file one name, or a list.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
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
#[derive(
    Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
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

/// Hand-written, because YAML reads `1.2` as a number.
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
#[derive(Clone, Copy, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Without a valid one the handshake fails.
    #[default]
    Required,
    /// Asked for; the plugin `client_certificate` tells the node whether there was a valid one.
    Optional,
}

/// TLS towards a node.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NodeTls {
    /// Authorities (PEM) that may have issued the node's certificate; absent: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Revocation lists (PEM or DER) of the authorities in `ca_file`.
    #[serde(default)]
    pub crl_file: Option<PathBuf>,
    /// Name sent as SNI and required of the certificate; absent: the node's host name or IP address.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Name of the certificate shown to a node that asks for one.
    #[serde(default)]
    pub client_certificate: Option<String>,
    /// Verifies the node's certificate and name.
    #[serde(default = "defaults::yes")]
    pub verify: bool,
}
