//! Warns of settings that are legal alone and do nothing, or harm, beside each other.
//!
//! In: listeners with their plugins, nodes and pools. Out: warnings, each at its place. A configuration with
//! warnings runs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use pushgate_plugins::PluginConfig;

mod nodes;
mod secrets;
mod twice;

use super::certificates::Sound;
use super::checker::{Check, steps};
use super::listeners::{bound_by, serves};
use super::targets;
use crate::config::tree::Step;
use crate::config::{Health, Listener, Mode};

pub(super) fn check(check: &mut Check<'_>, sound: &Sound) {
    let config = check.config;
    nodes::check(check);
    secrets::check(check);
    twice::check(check, sound);
    for (i, listener) in config.listeners.iter().enumerate() {
        secure_cookies(check, i, listener);
        unbound_vips(check, i, listener);
        plain_checks(check, i, listener);
        free_ports(check, i, listener);
    }
}

/// Browsers drop a `Secure` cookie that comes over plain HTTP. Behind a trusted proxy TLS may end in front.
fn secure_cookies(check: &mut Check<'_>, i: usize, listener: &Listener) {
    let elsewhere = listener.plugins.iter().any(|plugin| match plugin {
        PluginConfig::Forwarded(forwarded) => !forwarded.trust.is_empty(),
        PluginConfig::RedirectHttps(_) => true,
        _ => false,
    });
    if listener.tls.is_some()
        || listener.mode == Mode::Tcp
        || !listener.accept_proxy.is_empty()
        || elsewhere
    {
        return;
    }
    for (j, plugin) in listener.plugins.iter().enumerate() {
        if let PluginConfig::StickyCookie(cookie) = plugin
            && cookie.secure
        {
            let at = steps!["listeners", i, "plugins", j, "sticky_cookie", "secure"];
            let why = "browsers drop this cookie, because the listener has no `tls`; each of their requests \
                       is balanced anew";
            let expected = "`secure: false`, `tls` in the listener, or `trust` of `forwarded` for a proxy in \
                            front that ends TLS";
            check.warn(&at, why, expected);
        }
    }
}

/// Port 0 is another port after each start, which no client knows.
fn free_ports(check: &mut Check<'_>, i: usize, listener: &Listener) {
    for (k, _) in listener
        .bind
        .iter()
        .enumerate()
        .filter(|(_, b)| b.port() == 0)
    {
        let why = "the kernel picks the port, another one at each start";
        check.warn(
            &steps!["listeners", i, "bind", k],
            why,
            "the port that clients know",
        );
    }
}

/// No client reaches an address that is not bound. A trusted sender of the PROXY protocol names any address.
fn unbound_vips(check: &mut Check<'_>, i: usize, listener: &Listener) {
    if !listener.accept_proxy.is_empty() {
        return;
    }
    let bound = |vip: &str| match (vip.parse::<SocketAddr>(), vip.parse::<IpAddr>()) {
        // Port 0 becomes a port that the kernel picks.
        (Ok(vip), _) => serves(listener, vip) || serves(listener, SocketAddr::new(vip.ip(), 0)),
        (_, Ok(ip)) => {
            let mut ports = listener.bind.iter().map(SocketAddr::port);
            ports.any(|port| serves(listener, SocketAddr::new(ip, port)))
        }
        _ => true,
    };
    for (j, plugin) in listener.plugins.iter().enumerate() {
        let PluginConfig::VipRoute(route) = plugin else {
            continue;
        };
        for (vip, _) in route.vips.0.iter().filter(|(vip, _)| !bound(vip)) {
            let at = steps![
                "listeners",
                i,
                "plugins",
                j,
                "vip_route",
                "vips",
                vip.as_str()
            ];
            let why =
                format!("`{vip}` is not bound by this listener, so that no flow takes this route");
            let expected = format!("an address of {}", bound_by(listener, ip(vip)));
            check.warn_key(&at, &why, &expected);
        }
    }
}

fn ip(vip: &str) -> Option<IpAddr> {
    let address = vip.parse::<SocketAddr>().map(|a| a.ip());
    address.or_else(|_| vip.parse()).ok()
}

/// A port that expects the PROXY protocol refuses a check without it, so that the node is found Down.
fn plain_checks(check: &mut Check<'_>, i: usize, listener: &Listener) {
    let mut plugins = listener.plugins.iter();
    let version = plugins.find_map(|plugin| match plugin {
        PluginConfig::ProxyProtocol(p) => Some(p.version),
        _ => None,
    });
    let Some(version) = version else { return };
    let mut warned = BTreeSet::new();
    for target in targets::of_listener(check, i, listener) {
        for (at, health) in checks_of(check, &target) {
            let place = check.tree.locate(&at).path;
            if health.proxy_protocol.is_none() && !has_own_port(health) && warned.insert(place) {
                let why = format!(
                    "listener `{}` sends its nodes the PROXY protocol, and this check does not",
                    listener.name
                );
                let expected = format!("`proxy_protocol: {version}` in it, or a `port` of its own");
                check.warn_key(&at, &why, &expected);
            }
        }
    }
}

/// Returns the checks of a pool's nodes, or of a node, each with the place of its block.
fn checks_of<'a>(check: &Check<'a>, target: &str) -> Vec<(Vec<Step>, &'a Health)> {
    let config = check.config;
    let pool = |name: &str| {
        Some((
            steps!["pools", name, "health"].to_vec(),
            config.pools.get(name)?.health.as_ref()?,
        ))
    };
    let node = |name: &str| {
        Some((
            steps!["nodes", name, "health"].to_vec(),
            config.nodes.get(name)?.health.as_ref()?,
        ))
    };
    let Some(members) = config.pools.get(target) else {
        // A node without a check of its own has that of its pool.
        let mut pools = config
            .pools
            .iter()
            .filter(|(_, p)| p.nodes.iter().any(|n| n == target));
        return node(target)
            .or_else(|| pools.find_map(|(name, _)| pool(name)))
            .into_iter()
            .collect();
    };
    let own = members.nodes.iter().filter_map(|name| node(name));
    pool(target).into_iter().chain(own).collect()
}

fn has_own_port(health: &Health) -> bool {
    let ports = [
        health.http.as_ref().and_then(|c| c.port),
        health.tls.as_ref().and_then(|c| c.port),
        health.tcp.as_ref().and_then(|c| c.port),
    ];
    ports.iter().any(Option::is_some)
}
