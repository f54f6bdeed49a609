//! Compares an edge's configuration with the push servers' own files.
//!
//! In: a checked [`Config`] and what the files say. Out: every contradiction: a host name told to
//! clients that leads to the wrong server or nowhere, or that no certificate covers, the edge's or that
//! of the server's own keystore where TLS passes through; a node that no
//! file's socket answers. What passes the edge by is not judged.
//! Source: Lightstreamer clustering §2.2, §3.2 (`<control_link_address>`), §3.2.2.3.

use pushgate_plugins::{PluginConfig, host};

use super::keystore::refused;
use super::write::distinct_links;
use super::{Link, PushServer, Socket};
use crate::config::{Address, Certificate, Config, Listener, Node, covers};
use crate::tls::{Loaded, names_of};

/// Every contradiction between `config` and `servers`, one line each; none if they fit.
pub fn compare(config: &Config, servers: &[PushServer]) -> Vec<String> {
    let mut found: Vec<String> = distinct_links(servers).err().into_iter().collect();
    found.extend(servers.iter().filter_map(|server| link(config, server)));
    found.extend(nodes(config, servers));
    found
}

/// What is wrong with where `server`'s control link leads.
fn link(config: &Config, server: &PushServer) -> Option<String> {
    let Some(Link::Address(told, _)) = &server.link else {
        // Below which domains a machine's name is used, only clients know.
        return None;
    };
    let told = host::normalise(told);
    let path = server.path.display();
    let by_name = pins(config, Kind::Host, |name| matches(name, &told));
    let by_vip = pins(config, Kind::Vip, |_| true);
    if by_name.is_empty() && by_vip.is_empty() {
        // Without any pin the edge serves S only, and CR reaches a socket of the server's that ends TLS.
        if pins(config, Kind::Host, |_| true).is_empty() {
            let own: Vec<&Socket> = server.sockets.iter().filter(|s| s.tls).collect();
            return refused(server, &own, &told);
        }
        return Some(format!(
            "{path}: clients are told `{told}`, and no host_route of the edge has it"
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
            "{path}: clients are told `{told}`, but {way} leads to {}, and this server listens on {}",
            targets.join(", "),
            listens(server)
        ));
    };
    if pin.listener.tls.is_none() {
        // TLS passes through: what clients see is the certificate of the socket behind the pin.
        let node = config.nodes.get(pin.target)?;
        let reached = server.sockets.iter().filter(|s| s.tls && is_at(s, node));
        return refused(server, &reached.collect::<Vec<_>>(), &told);
    }
    uncovered(config, pin.listener, &told).then(|| {
        format!(
            "{path}: clients are told `{told}`, and no certificate of listener `{}` covers it",
            pin.listener.name
        )
    })
}

/// What a pin is filed under.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Vip,
}

/// A way of the edge's to one target.
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

/// Whether a key of `host_route` is for `told`.
fn matches(key: &str, told: &str) -> bool {
    let key = key.to_ascii_lowercase();
    match key.strip_prefix('*') {
        Some(zone) => told.ends_with(zone),
        None => host::normalise(&key) == told,
    }
}

/// Whether `node` is one of the server's sockets, as far as its file says.
fn answers(server: &PushServer, node: &Node) -> bool {
    server.sockets.iter().any(|socket| is_at(socket, node))
}

fn is_at(socket: &Socket, node: &Node) -> bool {
    match &node.address {
        Address::Socket(a) => {
            socket.port == a.port() && socket.interface.is_none_or(|ip| ip == a.ip())
        }
        // Which address the name has is not known here.
        Address::Host(host) => socket.port == host.port,
    }
}

/// Whether TLS ends at `listener` and none of its certificates is for `name`.
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

/// Nodes that are no socket of any file.
fn nodes(config: &Config, servers: &[PushServer]) -> Vec<String> {
    let strangers = config
        .nodes
        .iter()
        .filter(|(_, node)| !servers.iter().any(|server| answers(server, node)));
    strangers
        .map(|(name, node)| {
            let known: Vec<String> = servers.iter().map(listens).collect();
            format!(
                "node `{name}`: no file has a socket at {}; they have {}",
                node.address,
                known.join("; ")
            )
        })
        .collect()
}

fn describe(config: &Config, target: &str) -> String {
    match config.nodes.get(target) {
        Some(node) => format!("node `{target}` at {}", node.address),
        None => format!("pool `{target}`, where it is balanced"),
    }
}

fn listens(server: &PushServer) -> String {
    let sockets = server.sockets.iter().map(|socket| match socket.interface {
        Some(ip) => std::net::SocketAddr::new(ip, socket.port).to_string(),
        None => format!("port {}", socket.port),
    });
    sockets.collect::<Vec<_>>().join(", ")
}
