//! Binds the listening sockets before the threads start.
//!
//! In: a checked [`Config`], and the sockets that another process hands over. Out: one socket for each address.
//! Source: FAULTS D69.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

use crate::config::{self, Config};
use crate::listener::accept;

/// Sockets bound before the threads start, by address.
pub type Sockets = HashMap<SocketAddr, TcpListener>;

/// Binds every address of the configuration, and the admin endpoints', unless its socket is `inherited`.
/// Inherited sockets of other addresses are closed.
///
/// Errors: the address that cannot be bound, and why.
pub fn bind_all(config: &Config, mut inherited: Sockets) -> Result<Sockets, String> {
    let of = |l: &'_ config::Listener| {
        let options = accept::options(l);
        l.bind.clone().into_iter().map(move |a| (a, Some(options)))
    };
    let health = config.admin.iter().flat_map(|a| &a.health);
    let admin = config.admin.iter().map(|a| a.bind);
    let admin = admin.chain(health.map(|h| h.bind)).map(|a| (a, None));
    let mut sockets = Sockets::new();
    for (address, options) in config.listeners.iter().flat_map(of).chain(admin) {
        let socket = match inherited.remove(&address) {
            Some(socket) => socket,
            None => accept::bind(address, options.as_ref())
                .map_err(|e| format!("cannot bind {address}: {e}"))?,
        };
        sockets.insert(address, socket);
    }
    Ok(sockets)
}
