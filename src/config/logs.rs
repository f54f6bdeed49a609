//! What the logs hold, and where they go.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Field, LogFormat};

/// Where log lines go.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The access log: one line at the end of each flow, JSON unless `format` says otherwise.
    #[serde(default)]
    pub access: AccessLog,
    /// Writes a line at the beginning of a stream, a WebSocket or a layer-4 flow, too.
    #[serde(default)]
    pub begin: bool,
    /// The fields of a line, in their order; empty: all.
    #[serde(default)]
    pub fields: Vec<Field>,
    /// The text of a line; absent: JSON.
    #[serde(default)]
    pub format: Option<LogFormat>,
    /// Logs the query string too; off by default, because push clients put passwords there.
    #[serde(default)]
    pub query: bool,
    /// Form of the service log on standard error, or the journal that gets it.
    #[serde(default)]
    pub service: ServiceLog,
}

/// Destination of the access log.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// No access log.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to; opened again on SIGUSR1.
    File(PathBuf),
    /// A syslog server.
    Syslog(Syslog),
    /// systemd's journal, by its socket.
    Journald(PathBuf),
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// A socket of this machine, such as `/dev/log`.
    Local(PathBuf),
    /// A UDP port.
    Udp(SocketAddr),
}

impl<'de> Deserialize<'de> for Syslog {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Syslog;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "the path of a socket such as `/dev/log`, or an address with its UDP port",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Syslog, E> {
                match (text.starts_with('/'), text.parse()) {
                    (true, _) => Ok(Syslog::Local(text.into())),
                    (false, Ok(address)) => Ok(Syslog::Udp(address)),
                    (false, Err(_)) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        from.deserialize_str(Text)
    }
}

impl Serialize for Syslog {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Syslog::Local(path) => path.serialize(to),
            Syslog::Udp(address) => address.serialize(to),
        }
    }
}

/// Form of the service log.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ServiceLog {
    /// Lines for people.
    #[default]
    Text,
    /// Lines that begin with their level as `<4>`, as systemd's journal reads it.
    Journal,
    /// A JSON object for each line.
    Json,
    /// Entries with fields for systemd's journal, by its socket.
    Journald(PathBuf),
}
