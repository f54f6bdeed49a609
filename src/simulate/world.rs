//! The state of a run. Takes events in the order of their time; the edge's own code decides on each.
//!
//! In: a configuration and [`Settings`]. Out: a [`Report`].

mod edges;
mod event;
mod flows;
mod nodes;
mod peer;
mod rebalance;
mod rebalances;
mod site;
mod wait;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use pushgate_plugins::api::{NodeId, PoolId};

use self::event::{Event, SECOND, nanos};
use self::peer::Peer;
use self::rebalances::Rebalances;
use self::waiting::Waiting;
use super::client::{Client, Places};
use super::queue::Queue;
use super::report::{Event as Told, Report, Second};
use super::script::Settings;
use crate::config::{Config, Listener};
use crate::control::site::edge_report::EdgeReport;
use crate::explain::ResolvedQuestion;
use crate::route::Table;
use crate::upstream::State;
use edges::Edges;

/// Start of the run's wall clock, since 1970. It is fixed because tokens are dated, and the same run must
/// give the same tokens.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// The state of a run: nodes, clients, pending events and the report so far.
pub struct World<'a> {
    config: &'a Config,
    settings: &'a Settings,
    listener: &'a Listener,
    /// What each edge decides with.
    tables: Vec<Table>,
    /// What each edge has told the others; empty without a store.
    reports: Vec<EdgeReport>,
    question: ResolvedQuestion,
    host: String,
    session_ids: Places,
    peers: Vec<Peer>,
    places: HashMap<NodeId, usize>,
    clients: Vec<Client>,
    /// Flow id → client.
    owners: HashMap<u64, usize>,
    events: Queue<Event>,
    rng: fastrand::Rng,
    base: Instant,
    now: u64,
    sessions: u64,
    refused: u64,
    /// Queues by edge and pool: a route by host or path may lead clients to several.
    waiting: BTreeMap<(usize, PoolId), Waiting>,
    rebalances: Rebalances,
    report: Report,
}

impl<'a> World<'a> {
    /// Builds the state at time zero, with all events of the script.
    ///
    /// Errors: as [`super::simulate`].
    pub fn new(config: &'a Config, settings: &'a Settings) -> Result<Self, String> {
        let to = match &settings.to {
            Some(to) => to.clone(),
            None => first_address(config)?,
        };
        let question = ResolvedQuestion::of(config, &settings.question(to))?;
        let Edges { tables, reports } = Edges::new(config, settings, question.listener)?;
        let listener = &config.listeners[question.listener];
        let ids = tables[0].nodes.keys();
        let mut peers: Vec<Peer> = ids.map(|id| Peer::new(config, &tables, id)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        let places = peers.iter().enumerate().map(|(i, p)| (p.nodes[0].id, i));
        let places = places.collect();
        let names = peers.iter().map(|p| p.name.clone()).collect();
        let host = question.host.clone();
        let mut world = World {
            config,
            settings,
            listener,
            session_ids: Places::of(listener),
            tables,
            reports,
            question,
            host,
            peers,
            places,
            clients: Vec::with_capacity(settings.clients),
            owners: HashMap::new(),
            events: Queue::default(),
            rng: fastrand::Rng::with_seed(settings.seed),
            base: Instant::now(),
            now: 0,
            sessions: 0,
            refused: 0,
            waiting: BTreeMap::new(),
            rebalances: Rebalances::default(),
            report: Report {
                listener: listener.name.clone(),
                clients: settings.clients,
                seed: settings.seed,
                nodes: names,
                edges: settings.edges,
                store: settings.has_store(config),
                step: settings.step.as_secs().max(1) as usize,
                ..Report::default()
            },
        };
        world.script()?;
        Ok(world)
    }

    /// Takes all events until the end of the run, and returns the report.
    ///
    /// Errors: the listener does not balance the clients' flows.
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
                Event::Action(action, peer) => self.action(action, peer)?,
                Event::Checked(peer, changes) => self.checked(peer, changes),
                Event::Evict(peer, edge) => self.evict(peer, edge),
                Event::Count(edge) => self.count(edge),
                Event::Rebalance(order) => self.ordered(order)?,
                Event::Tick(run) => self.tick(run),
                Event::Look => self.look_for_returns(),
                Event::Turn(queue) => self.turn(queue)?,
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
        for (action, moment) in self.settings.moments()? {
            let place = self.places.get(&NodeId::of(&moment.node));
            let place = place
                .ok_or_else(|| format!("--{}: unknown node `{}`", action.option(), moment.node))?;
            self.events
                .add(nanos(moment.at), Event::Action(action, *place));
        }
        self.events.add(SECOND, Event::Second);
        self.script_counts();
        self.script_rebalances()
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + EPOCH + Duration::from_nanos(self.now)
    }

    /// Adds a line to the report's events.
    fn tell(&mut self, what: String) {
        let at = self.seconds();
        self.report.events.push(Told { at, what });
    }

    fn seconds(&self) -> f64 {
        self.now as f64 / SECOND as f64
    }

    /// Schedules the client's next flow after `pause`, and makes events of its older epochs void.
    fn again(&mut self, client: usize, pause: Duration) {
        let c = &mut self.clients[client];
        c.epoch += 1;
        self.events
            .add(self.now + nanos(pause), Event::Open(client, c.epoch));
    }

    fn second(&mut self) {
        let up = |p: &Peer| match p.nodes[0].state() {
            State::Up => p.nodes[0].weight(),
            _ => 0,
        };
        let weights: Vec<u32> = self.peers.iter().map(up).collect();
        let sample = Second {
            live: self.peers.iter().map(Peer::live).collect(),
            new: self
                .peers
                .iter_mut()
                .map(|p| std::mem::take(&mut p.new))
                .collect(),
            refused: self.refused,
            waiting: self.waiting.values().map(Waiting::len).sum(),
        };
        self.report.refused += std::mem::take(&mut self.refused);
        self.report.second(sample, &weights);
        self.events.add(self.now + SECOND, Event::Second);
    }
}

/// Returns a URL of the first listener.
///
/// Errors: the file has no listener, or the first one has no address.
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
