//! Compares an edge's configuration with the push servers' own files.
//!
//! In: a checked [`Config`] and the contents of the files. Out: every contradiction, of three kinds. A server
//! sends clients to a host name that leads to another server or nowhere. No certificate covers such a name:
//! neither the edge's, nor that of the server's own keystore if TLS passes through. A node has an address at
//! which no file has a socket. Traffic that bypasses the edge is not judged.
//! Source: Lightstreamer clustering §2.2, §3.2 (`<control_link_address>`), §3.2.2.3.

use pushgate_plugins::{PluginConfig, host};

use super::push_server::{Link, PushServer, Socket, refused};
use super::write::distinct_links;
use crate::config::{Address, Certificate, Config, Listener, Node, covers};
use crate::credentials::{Loaded, names_of};

/// Returns every contradiction between `config` and `servers`, one line each; empty if they fit.
pub fn compare(config: &Config, servers: &[PushServer]) -> Vec<String> {
    let mut found: Vec<String> = distinct_links(servers).err().into_iter().collect();
    found.extend(servers.iter().filter_map(|server| link(config, server)));
    found.extend(nodes(config, servers));
    found
}

/// Returns what is wrong with the destination of `server`'s control link.
fn link(config: &Config, server: &PushServer) -> Option<String> {
    let Some(Link::Address(told, _)) = &server.link else {
        // Only clients know the domains below which they use a machine's name.
        return None;
    };
    let told = host::normalise(told);
    let path = server.path.display();
    let by_name = pins(config, Kind::Host, |name| matches(name, &told));
    let by_vip = pins(config, Kind::Vip, |_| true);
    if by_name.is_empty() && by_vip.is_empty() {
        // Without any pin the edge serves S only, and CR reaches a socket of the server that ends TLS.
        if pins(config, Kind::Host, |_| true).is_empty() {
            let own: Vec<&Socket> = server.sockets.iter().filter(|s| s.tls).collect();
            return refused(server, &own, &told);
        }
        return Some(format!(
            "{path}: the server sends clients to `{told}`, but no host_route of the edge has it"
        ));
    }
    let named = !by_name.is_empty();
    let pins = if named { by_name } else { by_vip };
    let fits = pins.iter().find(|pin| {
        let node = config.nodes.get(pin.target);
        node.is_some_and(|node| answers(server, node))
    });
    let Some(pin) = fits else {
        let targets: Vec<String> = pins
            .iter()
            .map(|pin| describe(config, pin.target))
            .collect();
        let way = if named {
            format!("`{told}`")
        } else {
            "every VIP".to_owned()
        };
        return Some(format!(
            "{path}: the server sends clients to `{told}`, but {way} leads to {}; this server listens on {}",
            targets.join(", "),
            listens(server)
        ));
    };
    if pin.listener.tls.is_none() {
        // TLS passes through: clients see the certificate of the socket behind the pin.
        let node = config.nodes.get(pin.target)?;
        let reached = server.sockets.iter().filter(|s| s.tls && is_at(s, node));
        return refused(server, &reached.collect::<Vec<_>>(), &told);
    }
    uncovered(config, pin.listener, &told).then(|| {
        format!(
            "{path}: the server sends clients to `{told}`, but no certificate of listener `{}` covers it",
            pin.listener.name
        )
    })
}

/// The key of a pin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Vip,
}

/// A route of the edge to one target.
struct Pin<'a> {
    listener: &'a Listener,
    target: &'a str,
}

fn pins<'a>(config: &'a Config, kind: Kind, good: impl Fn(&str) -> bool) -> Vec<Pin<'a>> {
    let mut found = Vec::new();
    for listener in &config.listeners {
        for plugin in &listener.plugins {
            let pairs = match (plugin, kind) {
                (PluginConfig::HostRoute(c), Kind::Host) => &c.hosts.0,
                (PluginConfig::VipRoute(c), Kind::Vip) => &c.vips.0,
                _ => continue,
            };
            let good = pairs.iter().filter(|(name, _)| good(name));
            found.extend(good.map(|(_, target)| Pin { listener, target }));
        }
    }
    found
}

/// Returns whether a key of `host_route` matches `told`.
fn matches(key: &str, told: &str) -> bool {
    let key = key.to_ascii_lowercase();
    match key.strip_prefix('*') {
        Some(zone) => told.ends_with(zone),
        None => host::normalise(&key) == told,
    }
}

/// Returns whether `node` is one of the server's sockets, as far as its file says.
fn answers(server: &PushServer, node: &Node) -> bool {
    server.sockets.iter().any(|socket| is_at(socket, node))
}

fn is_at(socket: &Socket, node: &Node) -> bool {
    match &node.address {
        Address::Socket(a) => {
            socket.port == a.port() && socket.interface.is_none_or(|ip| ip == a.ip())
        }
        Address::Unix(_) => false,
        // The name's address is unknown here, so only the port is compared.
        Address::Host(host) => socket.port == host.port,
    }
}

/// Returns whether TLS ends at `listener` and none of its certificates covers `name`.
fn uncovered(config: &Config, listener: &Listener, name: &str) -> bool {
    let Some(tls) = &listener.tls else {
        return false;
    };
    let certificates = tls
        .certificates
        .iter()
        .filter_map(|c| config.certificates.get(c));
    let names = certificates.filter_map(|c| names(config, c));
    !names.flatten().any(|covered| covers(&covered, name))
}

fn names(config: &Config, certificate: &Certificate) -> Option<Vec<String>> {
    match &certificate.chain {
        Some(chain) => names_of(&config.dir.join(chain)).ok(),
        None => Some(Loaded::open(certificate, &config.dir).ok()?.names),
    }
}

/// Returns a line for each node that matches no socket of any file.
fn nodes(config: &Config, servers: &[PushServer]) -> Vec<String> {
    let strangers = config
        .nodes
        .iter()
        .filter(|(_, node)| !servers.iter().any(|server| answers(server, node)));
    strangers
        .map(|(name, node)| {
            let known: Vec<String> = servers.iter().map(listens).collect();
            format!(
                "node `{name}`: no file has a socket at {}; the files have {}",
                node.address,
                known.join("; ")
            )
        })
        .collect()
}

fn describe(config: &Config, target: &str) -> String {
    match config.nodes.get(target) {
        Some(node) => format!("node `{target}` at {}", node.address),
        None => format!("pool `{target}`, which balances CR"),
    }
}

fn listens(server: &PushServer) -> String {
    let sockets = server.sockets.iter().map(|socket| match socket.interface {
        Some(ip) => std::net::SocketAddr::new(ip, socket.port).to_string(),
        None => format!("port {}", socket.port),
    });
    sockets.collect::<Vec<_>>().join(", ")
}
