//! What runs, as a plan sees it: taken at once, so that the plan may take long while everything else goes on.
//!
//! In: the running parts, and the configuration that a plan is made for. Out: a copy, with the sockets that
//! move from one listener to another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use pushgate_plugins::api::{NodeId, PoolId};
use pushgate_plugins::unix::Shown;

use crate::balance::Pool;
use crate::config::{self, Config};
use crate::control::parts::Parts;
use crate::control::sockets::Sockets;
use crate::proxy::listener::Listener;
use crate::tls::Store;
use crate::tls::tickets::Ring;
use crate::upstream::Node;

/// What runs.
#[derive(Default)]
pub struct Before {
    /// Nodes of the configuration.
    pub nodes: HashMap<NodeId, Arc<Node>>,
    /// Pools.
    pub pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    /// Listeners by name.
    pub listeners: HashMap<String, BeforeListener>,
    /// Certificates.
    pub store: Store,
    /// Keys of session tickets.
    pub ring: Option<Arc<Ring>>,
    /// Ticket keys from the predecessor, until the ring exists.
    pub tickets: Option<Vec<u8>>,
}

/// A listener that runs.
pub struct BeforeListener {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its section of the configuration.
    pub conf: config::Listener,
    /// The addresses it accepts at, as its section gives them.
    pub addresses: Vec<SocketAddr>,
}

impl Before {
    /// Copies what runs in `parts`.
    pub fn of(parts: &Parts) -> Self {
        let nodes = parts.nodes.iter().map(|(id, c)| (*id, c.node.clone()));
        let listeners = parts.listeners.iter().map(|(name, l)| {
            let before = BeforeListener {
                listener: l.listener.clone(),
                conf: l.conf.clone(),
                addresses: l.loops.iter().map(|a| a.asked).collect(),
            };
            (name.clone(), before)
        });
        Before {
            nodes: nodes.collect(),
            pools: parts.pools.clone(),
            listeners: listeners.collect(),
            store: parts.store.clone(),
            ring: parts.ring.clone(),
            tickets: parts.tickets.clone(),
        }
    }

    /// Returns the listener that can take `conf` over without closing its sockets.
    pub fn same(&self, conf: &config::Listener) -> Option<&BeforeListener> {
        let old = self.listeners.get(&conf.name);
        old.filter(|old| same_kind(&old.conf, conf))
    }

    /// Adds to `sockets` those that listeners of `config` take over from others in `parts`.
    ///
    /// Errors: no descriptor is left.
    pub fn take_over(
        &self,
        parts: &Parts,
        config: &Config,
        sockets: &mut Sockets,
    ) -> Result<(), String> {
        for conf in &config.listeners {
            let same = self.same(conf);
            for address in &conf.bind {
                let stays = same.is_some_and(|old| old.addresses.contains(address));
                if stays || sockets.contains_key(address) {
                    continue;
                }
                let mut loops = parts.listeners.values().flat_map(|l| &l.loops);
                if let Some(running) = loops.find(|a| a.asked == *address) {
                    let socket = running.socket();
                    let socket =
                        socket.map_err(|e| format!("cannot take over {}: {e}", Shown(*address)))?;
                    sockets.insert(*address, socket);
                }
            }
        }
        Ok(())
    }
}

/// Whether a listener can apply the new section without closing its sockets.
fn same_kind(old: &config::Listener, new: &config::Listener) -> bool {
    let alpn = |l: &config::Listener| l.tls.as_ref().map(|t| (t.h2, t.alpn.clone()));
    old.mode == new.mode && alpn(old) == alpn(new)
}
