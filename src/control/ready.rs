//! Where the running proxy listens, and whether new clients should come.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use pushgate_plugins::unix::Shown;

use super::Running;
use crate::upstream::State;

impl Running {
    /// Returns the addresses in use, with their listeners' names.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let parts = self.parts();
        let all = parts.listeners.values();
        all.flat_map(|l| l.loops.iter().map(|a| (l.conf.name.clone(), a.bound)))
            .collect()
    }

    /// Returns the addresses in use, as people write them.
    pub(super) fn shown_addresses(&self) -> Vec<String> {
        let all = self.addresses().into_iter();
        let mut all: Vec<_> = all.map(|(_, at)| Shown(at).to_string()).collect();
        all.sort();
        all
    }

    /// Whether it takes no new clients, because it stops or a successor has taken over.
    pub(super) fn is_leaving(&self) -> bool {
        *self.drain.borrow() || self.stopping.load(Ordering::Relaxed)
    }

    /// Returns why new clients should not come here, if they should not.
    pub fn unready(&self) -> Option<String> {
        if self.is_leaving() {
            return Some("draining".into());
        }
        let parts = self.parts();
        let dead = parts
            .pools
            .values()
            .find(|p| p.nodes.iter().all(|n| n.state() == State::Down));
        dead.map(|p| format!("pool {} has no node", p.name))
    }
}
