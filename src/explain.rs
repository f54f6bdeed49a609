//! Implements `pushgate explain`: shows what the edge would do with one flow, and the line of the file that
//! decides.
//!
//! In: a configuration and a [`Question`] (address, URL, cookies). Out: listener, certificate, route and
//! node, from the same code that decides in the running edge ([`Table`]). It binds no socket and contacts no
//! node: all nodes count as Up, and tables of clients are empty.

mod flow;

use std::fmt::Write;
use std::sync::Arc;

use pushgate_plugins::api::{Flow, How, Route, Target};
use pushgate_plugins::context::Keep;

pub use self::flow::{Question, ResolvedQuestion};
use crate::balance::Pool;
use crate::config::{self, Config, Mode, Places, covers};
use crate::control::plan;
use crate::credentials::Loaded;
use crate::route::{Assigned, Decision, Table};
use crate::tls::{Choice, Store, choice};
use crate::upstream::Node;

/// Returns what the edge of `config` would do with the flow of `question`.
///
/// Errors: no listener or several match; the question is not a legal request; a file was removed since the
/// configuration was checked.
pub fn explain(config: &Config, places: &Places, question: &Question) -> Result<String, String> {
    let question = ResolvedQuestion::of(config, question)?;
    let tables = plan::tables(config, &Keep::default())?;
    let table = tables.get(question.listener).ok_or("no such listener")?;
    let listener = &config.listeners[question.listener];
    let answer = Answer {
        config,
        places,
        listener,
        number: question.listener.to_string(),
        table,
    };
    let mut text = answer.listener(&question);
    let names = answer.certificate(&question, &mut text)?;
    let flow = question.flow(listener);
    let host = flow.host.to_owned();
    let misdirected = names.is_some_and(|names| !names.iter().any(|n| covers(n, &host)))
        && table.routes_host(&host)
        && listener.mode == Mode::Http;
    if misdirected {
        let why = "421: the certificate does not cover the host; clients retry on a new connection";
        row(&mut text, "route", why);
        return Ok(text);
    }
    answer.route(&flow, &mut text);
    Ok(text)
}

/// The facts from which the answer is made.
struct Answer<'a> {
    config: &'a Config,
    places: &'a Places,
    listener: &'a config::Listener,
    number: String,
    table: &'a Table,
}

impl Answer<'_> {
    fn listener(&self, question: &ResolvedQuestion) -> String {
        let mut text = String::new();
        let what = format!("{}, {}", self.listener.name, question.vip);
        row(&mut text, "listener", &what);
        let bind = self.listener.bind.iter().position(|b| *b == question.bind);
        let bind = bind.unwrap_or(0).to_string();
        self.by(&mut text, &["listeners", &self.number, "bind", &bind]);
        text
    }

    /// Writes the certificate's row. Returns the names that the certificate covers if TLS ends here.
    fn certificate(
        &self,
        question: &ResolvedQuestion,
        text: &mut String,
    ) -> Result<Option<Vec<String>>, String> {
        let sni = question.sni.as_deref();
        let Some(tls) = self.listener.tls.as_ref().filter(|_| question.tls) else {
            if question.tls {
                let shown = sni.unwrap_or("none");
                row(
                    text,
                    "certificate",
                    &format!("the node's; TLS passes through, server name {shown}"),
                );
            }
            return Ok(None);
        };
        let store = Store::load(self.config, &Store::default()).map_err(|e| e.to_string())?;
        let choice = choice(tls, &store, question.vip, sni);
        let (word, why) = match &choice {
            Choice::Name(word, name) => (word, format!("covers {}", name)),
            Choice::Vip(word) => (word, "chosen by this address".to_owned()),
            Choice::First(word) => (word, "the first in the list".to_owned()),
            Choice::Refused => {
                return Err(match sni {
                    Some(name) => format!(
                        "the handshake is refused: no certificate covers {name} (strict_sni)"
                    ),
                    None => "the handshake is refused: no server name (strict_sni)".to_owned(),
                });
            }
        };
        let is_placeholder = store.get(word).is_some_and(|one| one.is_placeholder);
        let hint = if is_placeholder {
            "; a placeholder, until the authority has issued it"
        } else {
            ""
        };
        row(text, "certificate", &format!("{word}, {why}{hint}"));
        self.by(text, &["certificates", word]);
        let names = |l: &Arc<Loaded>| l.each().flat_map(|one| one.names.clone()).collect();
        let loaded = store.get(word).map(names);
        // A host given as an address is never misdirected: no certificate is chosen by it.
        let address = question
            .host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>();
        Ok(loaded.filter(|_| address.is_err()))
    }

    fn route(&self, flow: &Flow<'_>, text: &mut String) {
        let (plugin, route) = self.table.route(flow);
        let what = match &route {
            Route::To(Target::Pool(id)) => {
                let pool = self.table.pools.get(id);
                format!("pool {}", pool.map_or("(none)", |p| &p.name))
            }
            Route::To(Target::Node(id)) => {
                let node = self.table.nodes.get(id);
                format!("node {}", node.map_or("(none)", |n| &n.name))
            }
            Route::Refuse(status) => format!("refused with {}", status.as_u16()),
            Route::Redirect(status, to) => format!("redirected with {} to {to}", status.as_u16()),
        };
        row(text, "route", &what);
        match plugin {
            Some(plugin) => self.by_plugin(text, plugin.place, &plugin.rule(flow)),
            None => self.by(text, &["listeners", &self.number, "to"]),
        }
        if matches!(route, Route::To(_)) {
            self.node(flow, text);
        }
    }

    fn node(&self, flow: &Flow<'_>, text: &mut String) {
        match self.table.decide(flow, &[]) {
            Decision::Node(Assigned {
                node,
                how: How::Pinned,
                ..
            }) => {
                row(
                    text,
                    "node",
                    &format!("{} at {}, pinned", node.name, self.address(&node)),
                );
                self.by(text, &["nodes", &node.name]);
                self.hard_limit(text, &node.name);
            }
            Decision::Node(Assigned {
                node,
                how: How::Recalled { by, age },
                ..
            }) => {
                let (name, at) = (&node.name, self.address(&node));
                // A computed assignment has no age.
                let age = std::time::Duration::from_secs(age.as_secs());
                let age = match age.is_zero() {
                    true => String::new(),
                    false => format!(", learned {} ago", humantime::format_duration(age)),
                };
                row(
                    text,
                    "node",
                    &format!("{name} at {at}, recalled by {by}{age}"),
                );
                let mut sticky = self.table.plugins.sticky.iter();
                if let Some(plugin) = sticky.find(|p| p.name == by) {
                    self.by_plugin(text, plugin.place, &[]);
                }
                self.hard_limit(text, name);
            }
            Decision::Node(Assigned {
                pool: Some(pool), ..
            }) => self.balanced(&pool, text),
            Decision::NoNode(Some(pool)) => self.found(&pool, text),
            _ => row(text, "node", "no node can take the flow"),
        }
    }

    /// Describes a flow to a pool without nodes here: the running edge may have discovered some.
    fn found(&self, pool: &Pool, text: &mut String) {
        let conf = self.config.pools.get(&pool.name);
        match conf.and_then(|p| p.discover.as_ref()) {
            Some(_) => {
                row(text, "node", "one that the running edge discovers by DNS");
                self.by(text, &["pools", &pool.name, "discover"]);
            }
            None => row(text, "node", "no node can take the flow"),
        }
    }

    /// Returns a node's address as the file has it: `explain` looks up no names.
    fn address(&self, node: &Node) -> String {
        let conf = self.config.nodes.get(&node.name);
        conf.map_or_else(|| node.address.to_string(), |n| n.address.to_string())
    }

    /// Writes the limit at which a node refuses even this flow, which no other node gets.
    fn hard_limit(&self, text: &mut String, node: &str) {
        let own = self.config.nodes.get(node).and_then(|n| n.max_flows_hard);
        let mut pools = self.config.pools.iter();
        let (at, most) = match own {
            Some(most) => (["nodes", node], most),
            None => {
                let of = pools.find_map(|(name, p)| {
                    let most = p
                        .max_flows_hard
                        .filter(|_| p.nodes.iter().any(|n| n == node));
                    Some((["pools", name], most?))
                });
                let Some(found) = of else { return };
                found
            }
        };
        let what = format!("503 or closed while {node} has {most} live flows");
        row(text, "limit", &what);
        self.by(text, &[at[0], at[1], "max_flows_hard"]);
    }

    /// Describes a flow that is not stuck: how it is balanced, and which plugins would learn its node.
    fn balanced(&self, pool: &Pool, text: &mut String) {
        let takes = pool.nodes.iter().filter(|n| n.weight() > 0);
        let nodes: Vec<String> = takes
            .map(|n| {
                let backup = if n.is_backup() { ", backup" } else { "" };
                format!("{} (weight {}{backup})", n.name, n.weight())
            })
            .collect();
        let method = self.config.pools.get(&pool.name).map(|p| p.balance);
        let method = method.map_or("", config::Balance::as_str);
        row(
            text,
            "node",
            &format!("balanced by {method} among {}", nodes.join(", ")),
        );
        self.by(text, &["pools", &pool.name, "balance"]);
        for plugin in &self.table.plugins.sticky {
            row(
                text,
                "stickiness",
                &format!(
                    "{} has no assignment here and would learn the node",
                    plugin.name
                ),
            );
            self.by_plugin(text, plugin.place, &[]);
        }
    }

    fn by(&self, text: &mut String, path: &[&str]) {
        let _ = writeln!(text, "{:14}{}", "", self.places.of(path));
    }

    fn by_plugin(&self, text: &mut String, number: usize, rule: &[String]) {
        let number = number.to_string();
        let word = self.listener.plugins[number.parse().unwrap_or(0)].as_str();
        let mut path = vec!["listeners", &self.number, "plugins", &number, word];
        path.extend(rule.iter().map(String::as_str));
        self.by(text, &path);
    }
}

fn row(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "{what:13} {value}");
}

#[cfg(test)]
mod tests;
