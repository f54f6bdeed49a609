//! A push server, as its configuration file describes it.

use std::net::IpAddr;
use std::path::PathBuf;

use super::keystore::Keystore;
use crate::config::covers;

/// A push server as described in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushServer {
    /// The file.
    pub path: PathBuf,
    /// The server sockets in the file's order; at least one.
    pub sockets: Vec<Socket>,
    /// Where the server sends its clients for CR.
    pub link: Option<Link>,
    /// Whether it answers `/lightstreamer/healthcheck`; `None`: the file does not say.
    pub healthcheck: Option<bool>,
}

impl PushServer {
    /// Completes a link that names only a machine.
    pub(super) fn name_in(&mut self, domain: &str) {
        if let Some(Link::Machine(machine)) = &self.link {
            self.link = Some(Link::Address(format!("{machine}.{domain}"), None));
        }
    }
}

/// An `<http_server>` or `<https_server>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Whether TLS ends at the socket.
    pub tls: bool,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Address it listens on; `None`: all addresses, or a name that only the server's machine can resolve.
    pub interface: Option<IpAddr>,
    /// The socket's keystore.
    pub keystore: Option<Keystore>,
}

impl Socket {
    /// Returns what makes two servers' sockets alike: TLS, and the keystore's name.
    pub(super) fn kind(&self) -> (bool, Option<&str>) {
        (self.tls, self.keystore.as_ref().map(|k| k.file.as_str()))
    }
}

/// Where a server sends its clients for CR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// `<control_link_address>`: a host or an address, with a port if the file gives one.
    Address(String, Option<u16>),
    /// `<control_link_machine_name>`: a host below the domain that the client used.
    Machine(String),
}

/// Returns why clients that `server` sends to `name` would refuse these sockets: each ends TLS, its keystore
/// can be opened, and none covers the name. A keystore that cannot be opened here is not judged.
pub(super) fn refused(server: &PushServer, sockets: &[&Socket], name: &str) -> Option<String> {
    let mut files = Vec::new();
    for socket in sockets {
        let keystore = socket.keystore.as_ref()?;
        let names = keystore.names(&server.path).ok()?;
        if names.iter().any(|covered| covers(covered, name)) {
            return None;
        }
        files.push(format!("{} ({})", keystore.file, names.join(", ")));
    }
    (!files.is_empty()).then(|| {
        format!(
            "{}: the server sends clients to `{name}`, but the certificate of {} does not cover it",
            server.path.display(),
            files.join(" or ")
        )
    })
}
