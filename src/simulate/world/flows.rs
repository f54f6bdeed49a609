//! Opens, answers and ends the clients' flows, as the edge and the nodes would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::api::Flow;
use pushgate_plugins::head::{Edits, Head};

use super::World;
use super::event::{Event, SECOND, nanos};
use super::peer::Health;
use crate::balance::Pool;
use crate::config::defaults;
use crate::route::{Assigned, Decision};
use crate::simulate::client::Live;
use crate::upstream::{LiveFlow, State};

/// The result for a flow that asks for a node.
enum Answer {
    /// The flow gets a node, at this index.
    Node(Assigned, usize),
    /// The flow waits in the queue of this pool.
    Wait(Arc<Pool>),
    /// The flow is answered with 503.
    Refused,
}

impl World<'_> {
    /// Opens a client's next flow. Its current flow ends first, as a stream ends before a rebind.
    pub(super) fn open(&mut self, client: usize) -> Result<(), String> {
        self.end(client);
        let edge = self.edge();
        self.ask(client, edge, false)
    }

    /// Asks an edge for a node for the client's next flow. `in_turn`: the client waited in the queue and has its
    /// turn.
    pub(super) fn ask(&mut self, client: usize, edge: usize, in_turn: bool) -> Result<(), String> {
        let random = self.rng.u64(..);
        let c = &self.clients[client];
        let asked = c.request(&self.host, &self.session_ids);
        let (head, body) = asked.ok_or("not a legal request")?;
        let address = SocketAddr::new(c.address, 50_000);
        let as_asked = self.question.flow(self.listener);
        let flow = Flow {
            client: address,
            peer: address,
            source: address.ip(),
            wall: self.wall(),
            now: self.instant(),
            random,
            request: as_asked.request.and(Some(&head)),
            body: body.as_bytes(),
            ..as_asked
        };
        let answer = Head::make_response(200, "OK", []).map_err(|e| format!("{e:?}"))?;
        let mut answer = Edits::new(Arc::new(answer));
        let live = match self.assigned(&flow, edge, in_turn)? {
            Answer::Node(assigned, place) => {
                for editor in &self.tables[edge].plugins.editors {
                    // If a header cannot be built, the edge answers 500 to this client only.
                    let _ = editor.response(&flow, &assigned.facts(), &mut answer);
                }
                Ok(self.live(&flow, &assigned, (edge, place)))
            }
            Answer::Wait(pool) => Err(Some(pool)),
            Answer::Refused => Err(None),
        };
        match live {
            Ok(live) => self.begun(client, live, &answer),
            Err(Some(pool)) => self.wait(client, edge, pool),
            Err(None) => self.refuse(client, Duration::ZERO),
        }
        Ok(())
    }

    /// Decides for a flow until a node accepts the connect, as the edge does; returns the node and its
    /// index.
    ///
    /// Errors: the listener does not balance such flows.
    fn assigned(&self, flow: &Flow<'_>, edge: usize, in_turn: bool) -> Result<Answer, String> {
        let table = &self.tables[edge];
        let mut tried = Vec::new();
        loop {
            let decision = match in_turn {
                true => table.decide_in_turn(flow, &tried),
                false => table.decide(flow, &tried),
            };
            let assigned = match decision {
                Decision::Node(assigned) => assigned,
                Decision::Wait(pool) => return Ok(Answer::Wait(pool)),
                Decision::NoNode(_) | Decision::Full(..) | Decision::TooMany(_) => {
                    return Ok(Answer::Refused);
                }
                Decision::Refuse(status) => {
                    return Err(format!("the flow is refused with {status}"));
                }
                Decision::Redirect(_, to) => return Err(format!("the flow is redirected to {to}")),
            };
            let place = self.places[&assigned.node.id];
            if self.peers[place].health != Health::Dead {
                return Ok(Answer::Node(assigned, place));
            }
            // The connect is refused, so the edge tries another node.
            if let Some(pool) = &assigned.pool {
                let filed = table.filed(flow);
                let ip = flow.client.ip();
                table.ended_at(ip, &filed, pool.id, flow.now);
            }
            tried.push(assigned.node.id);
            if tried.len() > assigned.pool.as_ref().map_or(0, |p| p.retries as usize) {
                return Ok(Answer::Refused);
            }
        }
    }

    fn live(&self, flow: &Flow<'_>, assigned: &Assigned, (edge, place): (usize, usize)) -> Live {
        let (live, table) = (LiveFlow::new(), &self.tables[edge]);
        let pool = assigned.pool.as_ref();
        Live {
            entered: assigned.node.enter(&live, assigned.stickiness()),
            node: place,
            edge,
            learned: pool.map(|p| (p.id, table.filed(flow))),
            watches: table.watch(flow, assigned),
            flow: live,
        }
    }

    /// A node has accepted the client's connection. It answers unless it hangs.
    fn begun(&mut self, client: usize, live: Live, answer: &Edits) {
        let place = live.node;
        self.owners.insert(live.flow.id, client);
        self.peers[place].new += 1;
        self.report.flows += 1;
        match self.peers[place].health {
            Health::Hung { failure } => {
                self.clients[client].flow = Some(live);
                self.misses(client, failure);
            }
            _ => self.answered(client, live, answer),
        }
    }

    /// The node answers. The client's session continues if it is on this node. Otherwise a new session
    /// begins, and the report counts the old one as moved.
    fn answered(&mut self, client: usize, mut live: Live, answer: &Edits) {
        let (now, at) = (self.instant(), self.now);
        let place = live.node;
        let c = &mut self.clients[client];
        c.takes(answer);
        let moves = std::mem::take(&mut c.moves);
        let id = match c.session {
            Some((id, node)) if node == place => id,
            before => {
                let moved = &mut self.report.moved;
                let state = before.map(|(_, node)| self.peers[node].state());
                match state {
                    Some(State::Up) if moves => moved.rebalanced += 1,
                    Some(State::Up) => moved.unstuck += 1,
                    Some(State::Draining) => moved.drained += 1,
                    Some(State::Down) => moved.failed += 1,
                    None => {}
                }
                self.sessions += 1;
                self.sessions
            }
        };
        c.session = Some((id, place));
        live.answer(id, &self.session_ids, now);
        c.flow = Some(live);
        if let Some((since, failure)) = c.cut.take() {
            let seconds = (at - since) as f64 / SECOND as f64;
            self.report.failures[failure].without.push(seconds);
        }
        let rebind = self.settings.rebind.mul_f64(0.5 + self.rng.f64());
        self.again(client, rebind);
    }

    /// Notes that a failure leaves the client without an answering node from now on.
    pub(super) fn misses(&mut self, client: usize, failure: usize) {
        let c = &mut self.clients[client];
        if c.cut.is_none() {
            c.cut = Some((self.now, failure));
            self.report.failures[failure].cut += 1;
        }
    }

    /// Cuts a client's flow; the client reconnects after its pause.
    pub(super) fn cut(&mut self, client: usize) {
        self.end(client);
        let pause = self.settings.reconnect.draw(&mut self.rng);
        self.again(client, pause);
    }

    /// Answers a client with 503. The client comes again after `Retry-After` and a random extra time, of at
    /// most `Retry-After` or `spread`, whichever is longer.
    pub(super) fn refuse(&mut self, client: usize, spread: Duration) {
        self.refused += 1;
        let after = defaults::RETRY_AFTER.0;
        let jitter = after.max(spread).mul_f64(self.rng.f64());
        self.again(client, after + jitter);
    }

    /// Ends the client's flow, if it has one.
    pub(super) fn end(&mut self, client: usize) {
        let now = self.instant();
        let c = &mut self.clients[client];
        let Some(mut live) = c.flow.take() else {
            return;
        };
        for watch in &mut live.watches {
            watch.ended(now);
        }
        self.owners.remove(&live.flow.id);
        drop(live.entered);
        drop(live.flow);
        if let Some((pool, filed)) = live.learned {
            self.tables[live.edge].ended_at(c.address, &filed, pool, now);
        }
    }

    pub(super) fn replace(&mut self, client: usize) -> Result<(), String> {
        self.end(client);
        self.leave_queue(client);
        let c = &mut self.clients[client];
        if let Some((_, failure)) = c.cut {
            self.report.failures[failure].gone += 1;
        }
        c.renew();
        c.epoch += 1;
        self.leaves_after(client, self.now);
        self.open(client)
    }

    pub(super) fn leaves_after(&mut self, client: usize, from: u64) {
        if let Some(mean) = self.settings.stay {
            // Exponential: a client that has stayed long is as likely to leave as a new one.
            let stay = mean.mul_f64(-(1.0 - self.rng.f64()).ln());
            self.events.add(from + nanos(stay), Event::Replace(client));
        }
    }
}
