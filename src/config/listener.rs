//! The block of a listener: where it binds, which protocol it speaks, which plugins decide.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use pushgate_plugins::PluginConfig;
use pushgate_plugins::bounds::AboveZero;
use pushgate_plugins::trust::Trust;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::address::Bind;
use super::bounds::{self, Hidden};
use super::units::{Bytes, MaybeRate, Rate, Span};
use super::{ListenerTls, Mode, TcpOptions, UnixSocket, defaults};

/// Sockets on one or more VIPs that share plugins, certificates and limits.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Name in logs and metrics.
    pub name: String,
    /// Addresses to bind: `200.0.0.10:80`, `[2001:db8::10]:443`, `0.0.0.0:80`, `unix:/run/edge.sock`.
    #[serde(deserialize_with = "Bind::list", serialize_with = "Bind::write_list")]
    pub bind: Vec<SocketAddr>,
    /// Who may connect to its Unix sockets.
    #[serde(default)]
    pub unix: UnixSocket,
    /// Layer 4 or 7.
    pub mode: Mode,
    /// TLS that ends at the edge; absent: plain, or passed through at layer 4.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// Senders that must begin each connection with the PROXY protocol (v1 or v2); no other client may.
    #[serde(default)]
    pub accept_proxy: Trust,
    /// Pool or node of the flows no plugin routes.
    #[serde(default)]
    pub to: Option<String>,
    /// Plugins in the order they are asked.
    #[serde(default)]
    pub plugins: Vec<PluginConfig>,
    /// Passes `X-Forwarded-*`, `Forwarded` and `X-Real-IP` of clients on, where no `forwarded` sets them.
    #[serde(default)]
    pub pass_forwarded: bool,
    /// Most bytes of a flow that proxy and sockets hold while the client does not read.
    #[serde(default)]
    pub max_hidden: MaxHidden,
    /// Most connections of one client address (IPv6: /64).
    #[serde(default = "defaults::max_connections_per_client")]
    pub max_connections_per_client: NonZeroUsize,
    /// Most live flows of one client address (IPv6: /64).
    #[serde(default = "defaults::max_flows_per_client")]
    pub max_flows_per_client: NonZeroUsize,
    /// Most new connections of one client address (IPv6: /64) in a second; those beyond wait. See
    /// [`Listener::connection_rate`].
    #[serde(default)]
    pub connection_rate_per_client: Option<MaybeRate>,
    /// Most new requests and HTTP/2 streams of one client address (IPv6: /64) in a second; those beyond wait.
    /// See [`Listener::request_rate`].
    #[serde(default)]
    pub request_rate_per_client: Option<MaybeRate>,
    /// Deadline of each of these: the PROXY protocol header, a ClientHello that routes, the TLS handshake.
    #[serde(
        default = "defaults::handshake_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub handshake_timeout: Span,
    /// Deadline of a request's head, from its first byte (for the first request: from accept).
    #[serde(
        default = "defaults::head_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub head_timeout: Span,
    /// Limits of a request's head.
    #[serde(default)]
    pub limits: Limits,
    /// Options of the clients' sockets.
    #[serde(default)]
    pub tcp: TcpOptions,
}

impl Listener {
    /// Returns the rate of new connections of one client; `None`: there is none.
    pub fn connection_rate(&self) -> Option<Rate> {
        let (held, least) = (self.max_connections_per_client, defaults::CONNECTION_RATE);
        let default = || Some(least.max(renewed(held, defaults::CONNECTIONS_RENEWED)));
        self.connection_rate_per_client
            .map_or_else(default, |r| r.0)
    }

    /// Returns the rate of new requests of one client; `None`: there is none.
    pub fn request_rate(&self) -> Option<Rate> {
        let (held, least) = (self.max_flows_per_client, defaults::REQUEST_RATE);
        let default = || Some(least.max(renewed(held, defaults::FLOWS_RENEWED)));
        self.request_rate_per_client.map_or_else(default, |r| r.0)
    }
}

/// Returns the rate at which a client that holds `held` begins all of it anew within `within`.
fn renewed(held: NonZeroUsize, within: Span) -> Rate {
    let a_second = held.get() as u64 / within.0.as_secs().max(1);
    Rate::a_second(a_second.clamp(1, Rate::MAX.per_second() as u64))
}

/// Most bytes of a flow that proxy and sockets hold while the client does not read. In the file a size
/// (`32KiB`) or a block (`{ bytes: 32KiB, bulk: false }`).
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct MaxHidden {
    /// The bound, 4 KiB to 16 MiB.
    #[serde(default = "defaults::max_hidden", deserialize_with = "Hidden::read")]
    pub bytes: Bytes,
    /// Whether a bulk flow may use a window towards the node as large as the one its client offers.
    #[serde(default = "defaults::yes")]
    pub bulk: bool,
}

impl Default for MaxHidden {
    fn default() -> Self {
        MaxHidden {
            bytes: defaults::MAX_HIDDEN,
            bulk: true,
        }
    }
}

impl serde::Serialize for MaxHidden {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        // The function that `remote` generates.
        MaxHidden::serialize(self, s)
    }
}

/// Hand-written, because serde's `untagged` loses the line of a fault. `remote` above generates only the
/// function that decodes the block.
impl<'de> Deserialize<'de> for MaxHidden {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = MaxHidden;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, or a block (`bytes`, `bulk`)", Hidden::words())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<MaxHidden, E> {
                let wrong = || E::invalid_value(Unexpected::Str(text), &self);
                let bytes = Hidden::parse(text).ok_or_else(wrong)?;
                Ok(MaxHidden {
                    bytes,
                    ..MaxHidden::default()
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MaxHidden, A::Error> {
                MaxHidden::deserialize(MapAccessDeserializer::new(map))
            }
        }
        d.deserialize_any(V)
    }
}

/// Limits of a request's head.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most bytes of the whole head (431 beyond).
    #[serde(
        default = "defaults::max_head",
        deserialize_with = "bounds::Head::read"
    )]
    pub head: Bytes,
    /// Most bytes of the target (414 beyond).
    #[serde(
        default = "defaults::max_target",
        deserialize_with = "bounds::Head::read"
    )]
    pub target: Bytes,
    /// Most header lines (431 beyond).
    #[serde(
        default = "defaults::max_headers",
        deserialize_with = "bounds::Headers::read"
    )]
    pub headers: usize,
    /// Limits of an HTTP/2 connection.
    #[serde(default)]
    pub http2: Http2Limits,
}

/// Limits of an HTTP/2 connection. The last four are token buckets that refill in 10 s; a client that exceeds
/// one is sent GOAWAY.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Http2Limits {
    /// Most streams at once. The edge refuses more; the client may send them again.
    #[serde(
        default = "defaults::http2_streams",
        deserialize_with = "bounds::Streams::read"
    )]
    pub streams: u32,
    /// Bytes of the table with which the client compresses its heads.
    #[serde(
        default = "defaults::http2_header_table",
        deserialize_with = "bounds::Table::read"
    )]
    pub header_table: Bytes,
    /// Most streams that are reset before their answer begins, in 10 s.
    #[serde(
        default = "defaults::http2_resets",
        deserialize_with = "bounds::Frames::read"
    )]
    pub resets: u32,
    /// Most pings in 10 s.
    #[serde(
        default = "defaults::http2_pings",
        deserialize_with = "bounds::Frames::read"
    )]
    pub pings: u32,
    /// Most SETTINGS frames in 10 s, after the first.
    #[serde(
        default = "defaults::http2_settings",
        deserialize_with = "bounds::Frames::read"
    )]
    pub settings: u32,
    /// Most DATA frames in 10 s that carry nothing and end nothing.
    #[serde(
        default = "defaults::http2_empty_frames",
        deserialize_with = "bounds::Frames::read"
    )]
    pub empty_frames: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Http2Limits {
            streams: defaults::HTTP2_STREAMS,
            header_table: defaults::HTTP2_HEADER_TABLE,
            resets: defaults::HTTP2_RESETS,
            pings: defaults::HTTP2_PINGS,
            settings: defaults::HTTP2_SETTINGS,
            empty_frames: defaults::HTTP2_EMPTY_FRAMES,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head: defaults::MAX_HEAD,
            target: defaults::MAX_TARGET,
            headers: defaults::MAX_HEADERS,
            http2: Http2Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: the rates of a client grow with what it may hold, and a rate of the file holds as it is. Fails if the
    /// default throttles a client that may hold more, or if `off` is the default.
    #[test]
    fn rates_grow_with_what_a_client_may_hold() {
        let least = (Some(Rate::a_second(400)), Some(Rate::a_second(2000)));
        let of = |n| (Some(Rate::a_second(n)), Some(Rate::a_second(5 * n)));
        for (keys, expected) in [
            ("", least),
            (
                "max_connections_per_client: 3, max_flows_per_client: 3",
                least,
            ),
            (
                "max_connections_per_client: 1000000, max_flows_per_client: 1000000",
                of(40_000),
            ),
            (
                "max_connections_per_client: 18446744073709551615, max_flows_per_client: 18446744073709551615",
                (Some(Rate::MAX), Some(Rate::MAX)),
            ),
            (
                "connection_rate_per_client: off, request_rate_per_client: off",
                (None, None),
            ),
            (
                "connection_rate_per_client: 1/s, request_rate_per_client: 5/s",
                of(1),
            ),
        ] {
            let yaml = format!("{{ name: a, bind: [], mode: http, {keys} }}");
            let listener: Listener = serde_yaml::from_str(&yaml).expect(keys);
            let rates = (listener.connection_rate(), listener.request_rate());
            assert_eq!(rates, expected, "{keys}");
        }
    }
}
