//! What a process must not forget when another takes over from it: its listening sockets, what
//! plugins remember of clients, the keys of their session tickets, the operator's orders, and rebalances.
//!
//! Source: FAULTS D69; Lightstreamer clustering §4 (an assignment outlives more than a session).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Running;
use super::rebalance::Saved;
use crate::clock;
use crate::upstream::discover::{Answer, Source};
use crate::upstream::state::Order;

/// What is remembered, fit to be sent to another process.
#[derive(Default, Deserialize, Serialize)]
pub struct Memory {
    /// What plugins keep, by key.
    pub kept: Vec<(String, Vec<u8>)>,
    /// The operator's orders, by the node's name; those to follow the checks are left out.
    pub orders: Vec<(String, Order)>,
    /// The keys of session tickets ([`Ring::export`](crate::tls::tickets::Ring::export)).
    pub tickets: Option<Vec<u8>>,
    /// The last good answers of DNS: they may be all there is while it fails.
    #[serde(default)]
    pub answers: Vec<(Source, Answer)>,
    /// The rebalances that run.
    #[serde(default)]
    pub rebalances: Vec<Saved>,
    /// The date ([`clock::date`]): nothing that was remembered may be of the future.
    #[serde(default)]
    pub date: Option<SystemTime>,
}

impl Running {
    /// Another handle of each listening socket with the address it was asked to bind, the admin
    /// endpoint's among them.
    pub fn sockets(&self) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let parts = self.parts();
        let listeners = parts.listeners.values().flat_map(|l| &l.loops);
        let mut sockets = listeners
            .map(|l| Ok((l.asked, l.socket()?)))
            .collect::<io::Result<Vec<_>>>()?;
        if let Some(admin) = &parts.admin {
            sockets.push((admin.asked, admin.socket()?));
        }
        Ok(sockets)
    }

    /// What this process remembers now.
    pub fn memory(&self) -> Memory {
        let nodes = self.nodes();
        let orders = nodes.iter().map(|n| (n.name.clone(), n.ordered()));
        Memory {
            kept: self.keep.save(),
            orders: orders.filter(|(_, o)| *o != Order::Up).collect(),
            answers: self.discovery.answers(),
            tickets: self.parts().ring.as_ref().map(|ring| ring.export()),
            rebalances: self.rebalances.save(),
            date: Some(clock::date()),
        }
    }
}
