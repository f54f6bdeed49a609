//! The block `state`: the store through which the edges of a site share what one edge cannot know alone.
//!
//! Source: docs/scale.md, "A store for the site".

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use pushgate_plugins::bounds::Millis;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::HostName;
use super::defaults;
use super::units::Span;

/// Block `state`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SharedState {
    /// The store.
    pub redis: Redis,
    /// Name of this edge among those of the site; absent: the name of the machine.
    #[serde(default)]
    pub name: Option<HostName>,
}

/// A Redis or Valkey server, or several of which one is the master.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Its address, or several: the first that is a master is used.
    pub url: StoreUrls,
    /// Name of the master in Sentinel; `url` then names the Sentinels.
    #[serde(default)]
    pub sentinel: Option<String>,
    /// File whose first line is the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Authorities that may issue the server's certificate; absent: those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Begin of each key and channel, so that several sites may use one server.
    #[serde(default = "Prefix::usual")]
    pub prefix: Prefix,
    /// Longest time that a flow waits for the store, all its questions together.
    #[serde(
        default = "defaults::state_wait",
        deserialize_with = "Millis::<1, 1000>::read"
    )]
    pub wait: Span,
}

/// One or several addresses of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrls(pub Vec<StoreUrl>);

/// `redis://[USER@]HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    /// Whether the connection is under TLS.
    pub tls: bool,
    /// User of an access control list; `None`: the default user.
    pub user: Option<String>,
    /// Name or address of the server; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Number of the database.
    pub database: u32,
}

/// Examples of a value.
const SUCH: &str = "such as `redis://10.0.0.9:6379`, `rediss://USER@HOST:PORT/DATABASE`";

impl FromStr for StoreUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (scheme, rest) = text.split_once("://").ok_or(())?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(()),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| ())?,
        };
        let (user, server) = match authority.rsplit_once('@') {
            // A password in the file would be in every copy of it.
            Some((user, _)) if user.is_empty() || user.contains(':') => return Err(()),
            Some((user, server)) => (Some(user.to_owned()), server),
            None => (None, authority),
        };
        let (host, port) = match server.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(())?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| ())?;
                (
                    host,
                    port.strip_prefix(':').or(port.is_empty().then_some("6379")),
                )
            }
            None => match server.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (server, Some("6379")),
            },
        };
        let port = port
            .and_then(|p| p.parse().ok())
            .filter(|p| *p > 0)
            .ok_or(())?;
        if !server.starts_with('[') {
            host.parse::<HostName>()
                .map(drop)
                .or_else(|()| host.parse::<std::net::Ipv4Addr>().map(drop).map_err(|_| ()))?;
        }
        Ok(StoreUrl {
            tls,
            user,
            host: host.to_owned(),
            port,
            database,
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }?;
        match self.database {
            0 => Ok(()),
            number => write!(f, "/{number}"),
        }
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = StoreUrl;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a store's URL, {SUCH}")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<StoreUrl, E> {
                let password = text.split_once('@').is_some_and(|(user, _)| {
                    user.split_once("://")
                        .is_some_and(|(_, user)| user.contains(':'))
                });
                text.parse().map_err(|()| match password {
                    // Not repeated: a log or a ticket may quote the fault.
                    true => E::custom(
                        "has a password, which would be in every copy of this file; expected it in `password_file`",
                    ),
                    false => E::invalid_value(Unexpected::Str(text), &self),
                })
            }
        }
        d.deserialize_any(V)
    }
}

impl<'de> Deserialize<'de> for StoreUrls {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = StoreUrls;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a store's URL, or a list of them, {SUCH}")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<StoreUrls, E> {
                let text = serde::de::value::StrDeserializer::new(text);
                StoreUrl::deserialize(text).map(|url| StoreUrls(vec![url]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<StoreUrls, A::Error> {
                let mut urls = Vec::new();
                while let Some(url) = list.next_element()? {
                    urls.push(url);
                }
                match urls.is_empty() {
                    true => Err(A::Error::invalid_value(
                        Unexpected::Other("an empty list"),
                        &self,
                    )),
                    false => Ok(StoreUrls(urls)),
                }
            }
        }
        d.deserialize_any(V)
    }
}

impl Serialize for StoreUrls {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => s.collect_str(one),
            several => s.collect_seq(several.iter().map(ToString::to_string)),
        }
    }
}

/// Begin of the names of keys and channels: letters, digits, `-`, `_`, `.`, `:`; at most 64.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Prefix(pub String);

impl Prefix {
    /// The default.
    fn usual() -> Prefix {
        Prefix(defaults::STATE_PREFIX.to_owned())
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Prefix;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("1 to 64 letters, digits, `-`, `_`, `.` and `:`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Prefix, E> {
                let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
                match (1..=64).contains(&text.len()) && text.chars().all(legal) {
                    true => Ok(Prefix(text.to_owned())),
                    false => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        d.deserialize_any(V)
    }
}
