//! Checks plugins by building them, and that a certificate covers each host they route.
//!
//! In: `listeners[].plugins`, the names certificates cover. Out: faults. The plugins are dropped.

use std::net::IpAddr;

use pushgate_plugins::PluginConfig;
use pushgate_plugins::context::{Build, Keep, PluginError};

use super::certificates::{Covered, covers};
use super::checker::{Check, steps};
use crate::config::Listener;
use crate::config::decode::describe;
use crate::config::error::{echo, nearest, one_of};
use crate::config::tree::{Kind, Step};

/// How the names of plugins that route end.
pub(super) const ROUTES: &str = "_route";

pub(super) fn check(check: &mut Check<'_>, covered: &Covered) {
    let config = check.config;
    for (i, listener) in config.listeners.iter().enumerate() {
        let routes = |word: &str| word.ends_with(ROUTES) || word == "redirect_https";
        let routed = listener.plugins.iter().any(|p| routes(p.as_str()));
        if listener.to.is_none() && !routed {
            check.expect(
                &steps!["listeners", i],
                "no flow of this listener goes anywhere",
                "`to: <pool or node>`, or a plugin that routes",
            );
        }
        let at = |key: &str| check.tree.locate(&steps!["listeners", i, key]).path;
        // A plugin checks itself against these. While they are wrong, its faults would be guesses.
        if ["mode", "tls"].iter().any(|key| check.was_cut(&at(key))) || !check.names_are_known() {
            continue;
        }
        build(check, i, listener);
        cookies_differ(check, i, listener);
        hosts_are_covered(check, i, listener, covered);
    }
}

fn build(check: &mut Check<'_>, i: usize, listener: &Listener) {
    let nodes: Vec<&str> = check.names.nodes.iter().map(String::as_str).collect();
    let pools: Vec<(&str, &[String])> = check
        .names
        .pools
        .iter()
        .map(|name| {
            let nodes = check
                .config
                .pools
                .get(name)
                .map_or(&[] as &[String], |p| &p.nodes);
            (name.as_str(), nodes)
        })
        .collect();
    // The plugins are built only to be checked, so nothing of them is kept.
    let keep = Keep::default();
    for (j, plugin) in listener.plugins.iter().enumerate() {
        let built = plugin.build(&Build {
            listener: &listener.name,
            mode: listener.mode,
            tls: listener.tls.is_some(),
            nodes: &nodes,
            pools: &pools,
            dir: check.dir,
            keep: &keep,
        });
        for fault in built.err().unwrap_or_default() {
            tell(
                check,
                &steps!["listeners", i, "plugins", j, plugin.as_str()],
                fault,
            );
        }
    }
}

/// Records a plugin's own fault under its block.
fn tell(check: &mut Check<'_>, block: &[Step], fault: PluginError) {
    let mut path = block.to_vec();
    for step in &fault.path {
        let is_list = matches!(check.tree.find(&path).map(|n| &n.kind), Some(Kind::List(_)));
        path.push(match step.parse::<usize>() {
            Ok(index) if is_list => Step::Index(index),
            _ => Step::from(step.as_str()),
        });
    }
    let word = match check.tree.find(&path).map(|n| &n.kind) {
        Some(Kind::Scalar { text, .. }) => text.clone(),
        _ => fault.path.last().cloned().unwrap_or_default(),
    };
    let message = match (fault.message.is_empty(), check.tree.find(&path)) {
        (false, _) => fault.message,
        (true, Some(node)) if !fault.on_key => format!("found {}", describe(node)),
        (true, _) => {
            let key = fault.path.last().map_or("", String::as_str);
            format!("found `{}`", echo(key))
        }
    };
    if let Some(error) = check.fault(&path, message) {
        error.expected = fault.expected;
        // A fault of the block as a whole is shown at the plugin's word.
        error.on_key = fault.on_key || fault.path.is_empty();
        error.suggestion = nearest(&word, &fault.candidates);
        if error.suggestion.is_none() && error.expected.is_none() {
            error.expected = one_of(&fault.candidates);
        }
    }
}

/// Two blocks that set the same cookie would overwrite each other's on every answer.
fn cookies_differ(check: &mut Check<'_>, i: usize, listener: &Listener) {
    let mut seen: Vec<&str> = Vec::new();
    for (j, plugin) in listener.plugins.iter().enumerate() {
        let PluginConfig::StickyCookie(cookie) = plugin else {
            continue;
        };
        if seen.contains(&cookie.name.as_str()) {
            check.on_key(
                &steps!["listeners", i, "plugins", j, "sticky_cookie"],
                format!(
                    "the cookie `{}` is set by another block",
                    echo(&cookie.name)
                ),
                "another `name`",
            );
        }
        seen.push(&cookie.name);
    }
}

/// A host that is routed but covered by no certificate would fail in every browser.
fn hosts_are_covered(check: &mut Check<'_>, i: usize, listener: &Listener, covered: &Covered) {
    let Some(tls) = &listener.tls else {
        return;
    };
    let mut names = Vec::new();
    for certificate in &tls.certificates {
        match covered.get(certificate) {
            Some(found) => names.extend(found),
            // This certificate has a fault of its own, and what it covers is not known.
            None => return,
        }
    }
    for (j, plugin) in listener.plugins.iter().enumerate() {
        let word = plugin.as_str();
        let key = match word {
            "host_route" => "hosts",
            "sni_route" => "names",
            _ => continue,
        };
        // Read from the tree, so that the check needs only the key's name.
        for host in check
            .tree
            .keys(&steps!["listeners", i, "plugins", j, word, key])
        {
            // A certificate covers an address by an entry of another kind, which is not read here.
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
            if address || names.iter().any(|name| covers(name, host)) {
                continue;
            }
            let at = steps!["listeners", i, "plugins", j, word, key, host];
            let message = format!("no certificate of this listener covers `{}`", echo(host));
            let known = names
                .iter()
                .map(|n| format!("`{}`", echo(n)))
                .collect::<Vec<_>>();
            let expected = match known.as_slice() {
                [] => "a certificate that covers it".to_owned(),
                _ => format!("a name under {}", known.join(", ")),
            };
            check.on_key(&at, message, expected);
        }
    }
}
