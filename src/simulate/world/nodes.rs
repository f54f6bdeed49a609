//! What the script does to nodes, and when their checks find it out.

use std::sync::Arc;
use std::time::Duration;

use super::{Event, World, nanos};
use crate::config::{Config, defaults};
use crate::control::plan;
use crate::simulate::report::{Event as Told, Failure, Return};
use crate::simulate::script::Deed;
use crate::upstream::state::Order;
use crate::upstream::{Node, State};

/// A node and what the script does to it.
pub(super) struct Peer {
    pub node: Arc<Node>,
    pub alive: bool,
    changes: u32,
    /// Time for checks to find it dead, and alive.
    falls: Duration,
    rises: Duration,
    pub new: u64,
}

impl World<'_> {
    /// Does what the script says.
    pub(super) fn deed(&mut self, deed: Deed, place: usize) {
        self.tell(place, deed.word());
        let peer = &mut self.peers[place];
        peer.changes += 1;
        match deed {
            Deed::Drain => peer.node.order(Order::Drain),
            Deed::Fail => {
                peer.alive = false;
                let at = self.now + nanos(peer.falls);
                self.events.add(at, Event::Checked(place, peer.changes));
                self.cut(place);
            }
            Deed::Return => {
                // Who was only drained needs no check.
                let rises = if peer.alive { 0 } else { nanos(peer.rises) };
                peer.alive = true;
                let at = self.now + rises;
                self.events.add(at, Event::Checked(place, peer.changes));
            }
        }
    }

    /// Ends every flow and session of a node whose process is gone.
    fn cut(&mut self, place: usize) {
        let failure = self.report.failures.len();
        let mut cut = 0;
        for client in 0..self.clients.len() {
            let c = &mut self.clients[client];
            if c.session.is_some_and(|(_, node)| node == place) {
                c.session = None;
                self.report.moved.failed += 1;
            }
            if c.flow.as_ref().is_some_and(|f| f.node == place) {
                c.cut = Some((self.now, failure));
                cut += 1;
                self.end(client);
                let pause = self.settings.reconnect.draw(&mut self.rng);
                self.again(client, pause);
            }
        }
        self.report.failures.push(Failure {
            node: self.peers[place].node.name.clone(),
            at: self.seconds(),
            cut,
            gone: 0,
            without: Vec::with_capacity(cut),
            median: None,
            p99: None,
            all: None,
        });
    }

    /// The checks have found what the script did.
    pub(super) fn checked(&mut self, place: usize, changes: u32) {
        let now = self.instant();
        let peer = &self.peers[place];
        if peer.changes != changes {
            return;
        }
        let (node, alive) = (peer.node.clone(), peer.alive);
        let before = node.state();
        if alive {
            node.order(Order::Up);
        }
        node.judged(alive, "the script");
        if node.state() == before {
            return;
        }
        if alive && before == State::Down {
            node.returned(now);
        }
        self.tell(place, &format!("is {}", node.state().word()));
        if alive {
            self.report.returns.push(Return {
                node: node.name.clone(),
                at: self.seconds(),
                even_after: None,
            });
        }
    }

    fn tell(&mut self, place: usize, what: &str) {
        let what = format!("{} {what}", self.peers[place].node.name);
        let at = self.seconds();
        self.report.events.push(Told { at, what });
    }
}

impl Peer {
    /// The node as the file has it.
    pub fn new(config: &Config, node: &Arc<Node>) -> Peer {
        let health = plan::health_of(config, &node.name);
        // A node without a check is found by the first refused connect and checked every second.
        let (interval, timeout, rise) = match health {
            Some(h) => (h.interval.0, h.timeout.0, h.rise),
            None => (
                defaults::HEALTH_INTERVAL.0,
                defaults::HEALTH_TIMEOUT.0,
                defaults::HEALTH_RISE,
            ),
        };
        Peer {
            node: node.clone(),
            alive: true,
            changes: 0,
            falls: interval + timeout,
            rises: interval * rise,
            new: 0,
        }
    }
}
