//! The run: events one after the other, each a decision of the edge's own code.

mod nodes;
mod waiting;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use pingora_http::ResponseHeader;
use pushgate_plugins::api::{Flow, NodeId};
use pushgate_plugins::context::Keep;

use self::nodes::Peer;
use self::waiting::Waiting;
use super::client::{Client, Live};
use super::queue::Queue;
use super::report::{Report, Second};
use super::script::{Deed, Settings};
use crate::config::{Config, Listener, defaults};
use crate::control::plan;
use crate::explain::Asked;
use crate::route::{Assigned, Decision, Table};
use crate::upstream::{LiveFlow, State};

/// Where the wall clock begins: tokens are dated, and the same run must give the same ones.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

const SECOND: u64 = 1_000_000_000;

enum Event {
    /// A client opens its next flow, if it still is at this epoch.
    Open(usize, u32),
    /// A client goes for good and another takes its place.
    Replace(usize),
    /// Something of the script.
    Deed(Deed, usize),
    /// Checks have found a node dead or alive, unless it has changed meanwhile.
    Checked(usize, u32),
    /// The next of those that wait may have its turn.
    Turn,
    /// A client has waited for `queue_timeout`, if it still does.
    Late(usize, u32),
    /// A second is over.
    Second,
}

/// Everything there is.
pub struct World<'a> {
    config: &'a Config,
    settings: &'a Settings,
    listener: &'a Listener,
    table: Table,
    asked: Asked,
    host: HeaderValue,
    peers: Vec<Peer>,
    places: HashMap<NodeId, usize>,
    clients: Vec<Client>,
    events: Queue<Event>,
    rng: fastrand::Rng,
    base: Instant,
    now: u64,
    sessions: u64,
    refused: u64,
    waiting: Option<Waiting>,
    report: Report,
}

impl<'a> World<'a> {
    /// Builds everything at time zero.
    ///
    /// Errors: as [`super::simulate`].
    pub fn new(config: &'a Config, settings: &'a Settings) -> Result<Self, String> {
        let to = match &settings.to {
            Some(to) => to.clone(),
            None => first_address(config)?,
        };
        let asked = Asked::of(config, &settings.question(to))?;
        let mut tables = plan::tables(config, &Keep::default())?;
        let table = tables.swap_remove(asked.listener);
        let listener = &config.listeners[asked.listener];
        let mut peers: Vec<Peer> = table.nodes.values().map(|n| Peer::new(config, n)).collect();
        peers.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        let places = peers
            .iter()
            .enumerate()
            .map(|(i, p)| (p.node.id, i))
            .collect();
        let names = peers.iter().map(|p| p.node.name.clone()).collect();
        let host = HeaderValue::from_str(&asked.host).map_err(|e| e.to_string())?;
        let mut world = World {
            config,
            settings,
            listener,
            table,
            asked,
            host,
            peers,
            places,
            clients: Vec::with_capacity(settings.clients),
            events: Queue::default(),
            rng: fastrand::Rng::with_seed(settings.seed),
            base: Instant::now(),
            now: 0,
            sessions: 0,
            refused: 0,
            waiting: None,
            report: Report {
                listener: listener.name.clone(),
                clients: settings.clients,
                seed: settings.seed,
                nodes: names,
                step: settings.step.as_secs().max(1) as usize,
                ..Report::default()
            },
        };
        world.script()?;
        Ok(world)
    }

    /// Lets everything happen.
    pub fn run(mut self) -> Result<Report, String> {
        let end = nanos(self.settings.duration);
        while let Some((at, event)) = self.events.next() {
            if at > end {
                break;
            }
            self.now = at;
            match event {
                Event::Open(client, epoch) if self.clients[client].epoch == epoch => {
                    self.open(client)?
                }
                Event::Open(..) => {}
                Event::Replace(client) => self.replace(client)?,
                Event::Deed(deed, peer) => self.deed(deed, peer),
                Event::Checked(peer, changes) => self.checked(peer, changes),
                Event::Turn => self.turn()?,
                Event::Late(client, epoch) => self.late(client, epoch),
                Event::Second => self.second(),
            }
        }
        self.report.close();
        Ok(self.report)
    }

    fn script(&mut self) -> Result<(), String> {
        for n in 0..self.settings.clients {
            let client = Client::new(n, self.settings, &mut self.rng);
            self.clients.push(client);
            let arrives = self.settings.arrive.mul_f64(self.rng.f64());
            self.events.add(nanos(arrives), Event::Open(n, 0));
            self.leaves_after(n, nanos(arrives));
        }
        for (deed, moment) in self.settings.moments() {
            let place = self.places.get(&NodeId::of(&moment.node));
            let place =
                place.ok_or_else(|| format!("--{deed:?}: unknown node `{}`", moment.node))?;
            self.events.add(nanos(moment.at), Event::Deed(deed, *place));
        }
        self.events.add(SECOND, Event::Second);
        Ok(())
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    fn seconds(&self) -> f64 {
        self.now as f64 / SECOND as f64
    }

    /// Calls for the client's next flow after `pause`.
    fn again(&mut self, client: usize, pause: Duration) {
        let c = &mut self.clients[client];
        c.epoch += 1;
        self.events
            .add(self.now + nanos(pause), Event::Open(client, c.epoch));
    }

    /// Opens a client's next flow: the one it has ends first, as a stream does before it is bound anew.
    fn open(&mut self, client: usize) -> Result<(), String> {
        self.end(client);
        self.ask(client, false)
    }

    /// Asks for a node; `in_turn`: the client has waited for one.
    fn ask(&mut self, client: usize, in_turn: bool) -> Result<(), String> {
        let random = self.rng.u64(..);
        let head = self.clients[client]
            .request(&self.host)
            .ok_or("no legal request")?;
        let mut answer = ResponseHeader::build(200, None).map_err(|e| e.to_string())?;
        let flow = Flow {
            client: SocketAddr::new(self.clients[client].address, 50_000),
            peer: SocketAddr::new(self.clients[client].address, 50_000),
            wall: SystemTime::UNIX_EPOCH + EPOCH + Duration::from_nanos(self.now),
            now: self.instant(),
            random,
            request: self.asked.flow(self.listener).request.and(Some(&head)),
            body: b"",
            ..self.asked.flow(self.listener)
        };
        let mut tried = Vec::new();
        let assigned = loop {
            let decision = match in_turn {
                true => self.table.decide_in_turn(&flow, &tried),
                false => self.table.decide(&flow, &tried),
            };
            let assigned = match decision {
                Decision::Node(assigned) => assigned,
                Decision::Wait(pool) => break Err(Some(pool)),
                Decision::Refuse(status) => {
                    return Err(format!("the flow is refused with {status}"));
                }
                Decision::Redirect(_, to) => return Err(format!("the flow is redirected to {to}")),
                Decision::NoNode(_) => break Err(None),
            };
            let place = self.places[&assigned.node.id];
            if self.peers[place].alive {
                break Ok((assigned, place));
            }
            // A refused connect: the edge tries another node.
            if let Some(pool) = &assigned.pool {
                self.table.ended_at(
                    flow.client.ip(),
                    &self.table.filed(&flow),
                    pool.id,
                    flow.now,
                );
            }
            tried.push(assigned.node.id);
            if tried.len() > assigned.pool.as_ref().map_or(0, |p| p.retries as usize) {
                break Err(None);
            }
        };
        let live = assigned.map(|(assigned, place)| {
            for plugin in &self.table.plugins {
                // A header that cannot be made would be a 500 of that client's alone.
                let _ = plugin.response(&flow, &assigned.facts(), &mut answer);
            }
            self.live(&flow, assigned, place)
        });
        match live {
            Ok(live) => self.begun(client, live, &answer),
            Err(Some(pool)) => self.wait(client, pool),
            Err(None) => self.refuse(client, Duration::ZERO),
        }
        Ok(())
    }

    fn live(&self, flow: &Flow<'_>, assigned: Assigned, place: usize) -> Live {
        let live = LiveFlow::new();
        let pool = assigned.pool.as_ref();
        Live {
            entered: assigned.node.enter(&live, assigned.stuck()),
            node: place,
            learned: pool.map(|p| (p.id, self.table.filed(flow))),
            watches: self.table.watch(flow, &assigned),
            flow: live,
        }
    }

    /// A node has taken the client's flow: the session goes on there, or a new one begins.
    fn begun(&mut self, client: usize, mut live: Live, answer: &ResponseHeader) {
        let (now, at) = (self.instant(), self.now);
        let place = live.node;
        self.peers[place].new += 1;
        self.report.flows += 1;
        let c = &mut self.clients[client];
        c.takes(answer);
        let id = match c.session {
            Some((id, node)) if node == place => id,
            before => {
                if let Some((_, node)) = before {
                    match self.peers[node].node.state() {
                        State::Up => self.report.moved.unstuck += 1,
                        _ => self.report.moved.drained += 1,
                    }
                }
                self.sessions += 1;
                self.sessions
            }
        };
        c.session = Some((id, place));
        live.answer(id, now);
        c.flow = Some(live);
        if let Some((since, failure)) = c.cut.take() {
            let seconds = (at - since) as f64 / SECOND as f64;
            self.report.failures[failure].without.push(seconds);
        }
        let rebind = self.settings.rebind.mul_f64(0.5 + self.rng.f64());
        self.again(client, rebind);
    }

    /// The answer is a 503: the client comes again when it is told to, at least over `spread`.
    fn refuse(&mut self, client: usize, spread: Duration) {
        self.refused += 1;
        let after = defaults::RETRY_AFTER.0;
        let jitter = after.max(spread).mul_f64(self.rng.f64());
        self.again(client, after + jitter);
    }

    /// Ends the flow a client has.
    fn end(&mut self, client: usize) {
        let now = self.instant();
        let c = &mut self.clients[client];
        let Some(mut live) = c.flow.take() else {
            return;
        };
        for watch in &mut live.watches {
            watch.ended(now);
        }
        drop(live.entered);
        drop(live.flow);
        if let Some((pool, filed)) = live.learned {
            self.table.ended_at(c.address, &filed, pool, now);
        }
    }

    fn replace(&mut self, client: usize) -> Result<(), String> {
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

    fn leaves_after(&mut self, client: usize, from: u64) {
        if let Some(mean) = self.settings.stay {
            // Exponential: who has stayed for long is as likely to go as who has just come.
            let stay = mean.mul_f64(-(1.0 - self.rng.f64()).ln());
            self.events.add(from + nanos(stay), Event::Replace(client));
        }
    }

    fn second(&mut self) {
        let up = |p: &Peer| {
            if p.node.state() == State::Up {
                p.node.weight()
            } else {
                0
            }
        };
        let weights: Vec<u32> = self.peers.iter().map(up).collect();
        let sample = Second {
            live: self.peers.iter().map(|p| p.node.live()).collect(),
            new: self
                .peers
                .iter_mut()
                .map(|p| std::mem::take(&mut p.new))
                .collect(),
            refused: self.refused,
            waiting: self.waiting.as_ref().map_or(0, Waiting::len),
        };
        self.report.refused += std::mem::take(&mut self.refused);
        self.report.second(sample, &weights);
        self.events.add(self.now + SECOND, Event::Second);
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// A URL of the first listener.
fn first_address(config: &Config) -> Result<http::Uri, String> {
    let listener = config.listeners.first().ok_or("the file has no listener")?;
    let bind = listener
        .bind
        .first()
        .ok_or("the first listener has no address")?;
    let scheme = if listener.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{bind}/");
    url.parse().map_err(|e| format!("{url}: {e}"))
}
