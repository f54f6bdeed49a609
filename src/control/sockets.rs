//! Binds the listening sockets before the threads start.
//!
//! In: a checked [`Config`], and the sockets that another process hands over. Out: one socket for each address.
//! Source: FAULTS D69.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

use pushgate_plugins::unix::Shown;

use crate::config::{self, Config};
use crate::listener::accept;
use crate::stream::socket::Options;

/// Sockets bound before the threads start, by address.
pub type Sockets = HashMap<SocketAddr, TcpListener>;

/// Binds every address of the configuration, and the admin endpoints', unless its socket is `inherited`.
/// Inherited sockets of other addresses are closed.
///
/// Errors: the address that cannot be bound, and why.
pub fn bind_all(config: &Config, mut inherited: Sockets) -> Result<Sockets, String> {
    fn of(
        l: &config::Listener,
    ) -> impl Iterator<Item = (SocketAddr, Option<Options>, &config::UnixSocket)> {
        let options = accept::options(l);
        l.bind.iter().map(move |a| (*a, Some(options), &l.unix))
    }
    let admin = config.admin.iter().map(|a| (a.bind, None, &a.unix));
    let health = config.admin.iter().flat_map(|a| &a.health);
    let anybody = config::UnixSocket::default();
    let admin = admin.chain(health.map(|h| (h.bind, None, &anybody)));
    let mut sockets = Sockets::new();
    for (address, options, unix) in config.listeners.iter().flat_map(of).chain(admin) {
        let socket = match inherited.remove(&address) {
            Some(socket) => socket,
            None => accept::bind(address, options.as_ref(), unix)
                .map_err(|e| format!("cannot bind {}: {e}", Shown(address)))?,
        };
        sockets.insert(address, socket);
    }
    Ok(sockets)
}
