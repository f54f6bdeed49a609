//! Applies the script to nodes: their failures, when checks notice these, and the end of their flows.

use std::time::Duration;

use super::World;
use super::event::{Event, SECOND, nanos};
use super::peer::Health;
use crate::simulate::report::{Failure, Return};
use crate::simulate::script::Action;
use crate::upstream::Order;
use crate::upstream::State;
use crate::upstream::evict::{Due, Paced};

impl World<'_> {
    /// Does an action of the script to the node at `place`.
    ///
    /// Errors: as [`World::open`].
    pub(super) fn action(&mut self, action: Action, place: usize) -> Result<(), String> {
        self.tell_of(place, action.as_str());
        let peer = &mut self.peers[place];
        peer.changes += 1;
        match action {
            Action::Drain => peer.nodes.iter().for_each(|n| n.order(Order::Drain)),
            Action::Fail => {
                peer.health = Health::Dead;
                let after = peer.falls;
                self.check_after(place, after);
                self.die(place);
            }
            Action::Hang => {
                let after = peer.falls_hung;
                if let Some(after) = after {
                    self.check_after(place, after);
                }
                self.hang(place);
            }
            Action::Return => {
                let before = std::mem::replace(&mut peer.health, Health::Well);
                // A node that was only drained needs no check.
                let after = match before {
                    Health::Well => Duration::ZERO,
                    _ => peer.rises,
                };
                self.check_after(place, after);
                if let Health::Hung { .. } = before {
                    self.resume(place)?;
                }
            }
        }
        Ok(())
    }

    fn check_after(&mut self, place: usize, after: Duration) {
        let at = self.now + nanos(after);
        let changes = self.peers[place].changes;
        self.events.add(at, Event::Checked(place, changes));
    }

    /// Returns the clients with a flow to the node.
    fn clients_of(&self, place: usize) -> Vec<usize> {
        let all = self.clients.iter().enumerate();
        let of = all.filter(|(_, c)| c.flow.as_ref().is_some_and(|f| f.node == place));
        of.map(|(client, _)| client).collect()
    }

    /// Ends every flow and session of a node whose process died.
    fn die(&mut self, place: usize) {
        let failure = self.failure(place);
        for client in 0..self.clients.len() {
            self.lose_session(client, place);
        }
        for client in self.clients_of(place) {
            self.misses(client, failure);
            self.cut(client);
        }
    }

    /// Makes every flow of a node silent; its clients wait.
    fn hang(&mut self, place: usize) {
        let failure = self.failure(place);
        self.peers[place].health = Health::Hung { failure };
        for client in self.clients_of(place) {
            self.misses(client, failure);
        }
    }

    /// Makes a hung node serve again, whether checks found it Down or not. Streams continue; clients without
    /// an answer ask again.
    fn resume(&mut self, place: usize) -> Result<(), String> {
        for client in self.clients_of(place) {
            let c = &mut self.clients[client];
            if c.flow.as_ref().is_some_and(|f| !f.flow.has_begun()) {
                self.open(client)?;
            } else if let Some((since, failure)) = c.cut.take() {
                let seconds = (self.now - since) as f64 / SECOND as f64;
                self.report.failures[failure].without.push(seconds);
            }
        }
        Ok(())
    }

    fn failure(&mut self, place: usize) -> usize {
        self.report.failures.push(Failure {
            node: self.peers[place].name.clone(),
            at: self.seconds(),
            ..Failure::default()
        });
        self.report.failures.len() - 1
    }

    fn lose_session(&mut self, client: usize, place: usize) {
        let c = &mut self.clients[client];
        if c.session.is_some_and(|(_, node)| node == place) {
            c.session = None;
            self.report.moved.failed += 1;
        }
    }

    /// The checks notice what the script did to the node.
    pub(super) fn checked(&mut self, place: usize, changes: u32) {
        let now = self.instant();
        let peer = &self.peers[place];
        if peer.changes != changes {
            return;
        }
        let well = peer.health == Health::Well;
        let before = peer.state();
        for node in &peer.nodes {
            if well {
                node.order(Order::Up);
            }
            node.judged(well, "the script");
        }
        let state = peer.state();
        if state == before {
            return;
        }
        if well {
            // Also after a drain. `order` takes the machine's clock; this sets the run's.
            peer.nodes.iter().for_each(|n| n.returned(now));
        }
        let name = peer.name.clone();
        self.tell_of(place, &format!("is {}", state.as_str()));
        if well {
            self.report.returns.push(Return {
                node: name,
                at: self.seconds(),
                even_after: None,
            });
        } else {
            self.found_down(place);
        }
    }

    /// Ends the flows of a node that went Down. With an `evict_rate`, flows whose answer has begun end at
    /// that rate; all others end at once.
    fn found_down(&mut self, place: usize) {
        let now = self.instant();
        let clients = self.clients_of(place);
        for edge in 0..self.tables.len() {
            let flows = clients.iter();
            let flows = flows.filter_map(|c| self.clients[*c].flow.as_ref());
            let flows = flows.filter(|f| f.edge == edge && f.flow.is_evicted());
            let flows: Vec<_> = flows.map(|f| f.flow.clone()).collect();
            let at_once = match self.peers[place].evict_rate {
                None => flows,
                Some(rate) => {
                    let (at_once, paced) = Paced::new(flows, rate, now);
                    self.peers[place].evicted[edge] = Some(paced);
                    self.events.add(self.now, Event::Evict(place, edge));
                    at_once
                }
            };
            at_once
                .iter()
                .for_each(|flow| self.ends_by_eviction(flow.id, place));
        }
    }

    /// Ends the due flows of a Down node at one edge, and schedules itself for the next.
    pub(super) fn evict(&mut self, place: usize, edge: usize) {
        let now = self.instant();
        let Some(mut paced) = self.peers[place].evicted[edge].take() else {
            return;
        };
        let is_down = self.peers[place].state() == State::Down;
        while let Some(due) = paced.next(now) {
            match due {
                Due::Now(flow) => self.ends_by_eviction(flow.id, place),
                Due::In(wait) if is_down => {
                    let next = Event::Evict(place, edge);
                    self.events.add(self.now + nanos(wait), next);
                    self.peers[place].evicted[edge] = Some(paced);
                    return;
                }
                // The node is back, so it keeps the flows that are left.
                Due::In(_) => {
                    for flow in paced.left() {
                        flow.retry();
                        flow.begin();
                    }
                    return;
                }
            }
        }
    }

    fn ends_by_eviction(&mut self, flow: u64, place: usize) {
        if let Some(client) = self.owners.get(&flow).copied() {
            self.lose_session(client, place);
            self.cut(client);
        }
    }

    fn tell_of(&mut self, place: usize, what: &str) {
        self.tell(format!("{} {what}", self.peers[place].name));
    }
}
