//! Reads what listeners, nodes and session tickets need of their files, and puts it in force.
//!
//! In: what serves, copied at once; loaded certificates. Out: TLS contexts, built without a lock, then swapped in
//! under it. What cannot be read stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Config};
use crate::control::node_tls;
use crate::control::parts::Parts;
use crate::proxy::listener::Listener;
use crate::tls::tickets::{NewTickets, Ring};
use crate::tls::{Acceptors, Store};
use crate::upstream::Node;
use crate::upstream::tls::Secure;

/// Everything that serves something of a file.
pub struct Serving {
    listeners: Vec<(config::Listener, Arc<Listener>)>,
    nodes: Vec<(config::Node, Arc<Node>)>,
    ring: Option<Arc<Ring>>,
}

impl Serving {
    /// Copies what serves now.
    pub fn of(parts: &Parts) -> Self {
        let listeners = parts.listeners.values();
        let listeners = listeners.filter(|l| l.listener.tls.is_some());
        let nodes = parts.nodes.values().filter(|c| c.node.tls.is_some());
        Serving {
            listeners: listeners
                .map(|l| (l.conf.clone(), l.listener.clone()))
                .collect(),
            nodes: nodes.map(|c| (c.conf.clone(), c.node.clone())).collect(),
            ring: parts.ring.clone(),
        }
    }

    /// Reads the files and builds the contexts. Whatever needs a file in `hung` stays as it is.
    pub fn read(self, config: &Config, store: &Store, hung: &BTreeSet<PathBuf>) -> Fresh {
        let mut fresh = Fresh::default();
        let answer = |files: &[&Option<PathBuf>]| all_answer(files, &config.dir, hung);
        for (conf, listener) in self.listeners {
            let Some(tls) = &listener.tls else { continue };
            let files = conf.tls.as_ref().map(|t| [&t.client_ca, &t.client_crl]);
            let prepared = answer(&files.unwrap_or([&None; 2])).and_then(|()| {
                let prepared = tls.prepare(&conf, store, &config.dir);
                prepared.map_err(|e| e.to_string())
            });
            match prepared {
                Ok(acceptors) => fresh.acceptors.push((listener, acceptors)),
                Err(fault) => {
                    let why = format!("{fault}; still serving the old certificates");
                    fresh.failed.insert(format!("listener {}", conf.name), why);
                }
            }
        }
        for (conf, node) in self.nodes {
            let files = conf.tls.as_ref().map(|t| [&t.ca_file, &t.crl_file]);
            let secure = answer(&files.unwrap_or([&None; 2]));
            match secure.and_then(|()| node_tls::secure(config, &conf, store)) {
                Ok(Some(secure)) => fresh.nodes.push((node, secure)),
                Ok(None) => {}
                Err(fault) => {
                    let why = format!("{fault}; still using the old certificates");
                    fresh.failed.insert(format!("node {}", node.name), why);
                }
            }
        }
        if let Some(ring) = self.ring {
            let read = answer(&[&config.tickets.file]);
            let read = read.and_then(|()| NewTickets::read(config).map_err(|e| e.to_string()));
            match read {
                Ok(tickets) => fresh.tickets = Some((ring, tickets)),
                Err(fault) => {
                    let why = format!("{fault}; still using the old keys");
                    fresh.failed.insert("session tickets".into(), why);
                }
            }
        }
        fresh
    }
}

/// Errors: the first of `files` that is in `hung`.
fn all_answer(
    files: &[&Option<PathBuf>],
    dir: &Path,
    hung: &BTreeSet<PathBuf>,
) -> Result<(), String> {
    let mut paths = files.iter().copied().flatten().map(|file| dir.join(file));
    match paths.find(|path| hung.contains(path)) {
        Some(path) => Err(format!(
            "{}: its file system does not answer",
            path.display()
        )),
        None => Ok(()),
    }
}

/// What was read, not in force yet.
#[derive(Default)]
pub struct Fresh {
    acceptors: Vec<(Arc<Listener>, Acceptors)>,
    nodes: Vec<(Arc<Node>, Secure)>,
    tickets: Option<(Arc<Ring>, NewTickets)>,
    /// What cannot be read, and why.
    failed: BTreeMap<String, String>,
}

impl Fresh {
    /// Puts it in force. Returns the certificates that were replaced, for the caller to drop without the lock.
    pub fn serve(self, parts: &mut Parts) -> Vec<Arc<Acceptors>> {
        let swap = |(listener, fresh): (Arc<Listener>, Acceptors)| {
            let tls = listener.tls.as_ref();
            tls.map(|tls| tls.swap(fresh))
        };
        let replaced = self.acceptors.into_iter().filter_map(swap).collect();
        for (node, fresh) in self.nodes {
            if let Some(tls) = &node.tls
                && tls.is_same(&fresh)
                && tls.adopt(&fresh)
            {
                log::info!("node {}: TLS files reloaded", node.name);
            }
        }
        if let Some((ring, tickets)) = self.tickets {
            ring.take_over(tickets);
        }
        let before = std::mem::replace(&mut parts.unserved, self.failed);
        let news = parts.unserved.iter();
        for (who, why) in news.filter(|(who, why)| before.get(*who) != Some(*why)) {
            log::error!("{who}: {why}, trying again each second");
        }
        replaced
    }
}
