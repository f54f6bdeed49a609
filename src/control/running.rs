//! The running proxy: built from a configuration, and changed in place by the next one.
//!
//! In: a checked [`Config`]. Out: live listeners. A reload keeps live flows: unchanged nodes and listeners
//! stay, changed or removed ones drain. Source: FAULTS D67, D68.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pushgate_plugins::api::{Peers, PoolId};
use pushgate_plugins::context::Keep;

use super::discovery::{Discovery, Expanded};
use super::endpoint::Endpoint;
use super::file_thread::on_file_thread;
use super::handover::{HandoverState, SavedDrain};
use super::parts::{Listed, Parts, first_checks};
use super::plan::{Before, Plan, Shift};
use super::rebalance::Rebalances;
use super::rebalance::site::SiteRuns;
use super::refused::Names;
use super::site::Site;
use super::site::obey::{forget_at_start, obey_at_start};
use super::sockets::Sockets;
use super::started::Started;
use crate::balance::Pool;
use crate::clock;
use crate::config::Config;
use crate::listener::edge::Edge;
use crate::observe::{metrics, systemd};
use crate::site::{self, OtherEdges, Store};
use crate::upstream::Membership;
use crate::upstream::Node;
use crate::upstream::Order;

/// Within this time a request has decided by the table it holds.
const MOMENT: Duration = Duration::from_millis(100);

/// The running proxy.
pub struct Running {
    pub(super) edge: Arc<Edge>,
    path: Option<PathBuf>,
    pub(super) keep: Arc<Keep>,
    /// Notified when a successor has taken over, so that this process drains.
    pub relieved: tokio::sync::Notify,
    parts: Mutex<Parts>,
    started: Arc<Started>,
    /// Whether a stop has been told, so that no new clients should be sent here.
    pub(super) stopping: AtomicBool,
    /// The store of the site; `None`: this edge is alone.
    pub store: Option<Arc<Store>>,
    /// DNS names that are followed.
    pub(super) discovery: Discovery,
    /// The last rebalance of each pool, running or over.
    pub(super) rebalances: Rebalances,
    /// The rebalances of the site in which this edge takes part.
    pub(super) site_runs: SiteRuns,
    /// What is known of the other edges.
    pub(super) site: Arc<Site>,
    /// Held during a reload with its checks, so that reloads do not overlap.
    reloading: tokio::sync::Mutex<()>,
    pub(super) drain: tokio::sync::watch::Sender<bool>,
    /// How often changed files were put in force.
    pub(super) refreshes: AtomicU64,
    /// A reload may have put older files in force than a refresh beside it, so they must be read again.
    pub(super) must_refresh: AtomicBool,
}

impl Running {
    /// Creates a proxy in which nothing runs yet. A reload reads the file at `path`; `state`
    /// comes from the predecessor; `store` and `site`, with the orders that hold, from the configuration.
    pub fn new(
        edge: Arc<Edge>,
        path: Option<PathBuf>,
        drain: tokio::sync::watch::Sender<bool>,
        state: HandoverState,
        (store, site): (Option<Arc<Store>>, Site),
    ) -> Arc<Self> {
        state.date.into_iter().for_each(clock::go_on_from);
        // Counted from now, because the first checks of the nodes take a while.
        let (now, drains) = (Instant::now(), state.drains.into_iter());
        let parts = Parts {
            orders: state.orders,
            drains: drains.map(|d| (d.node.clone(), d.terms(now))).collect(),
            tickets: state.tickets,
            ..Parts::default()
        };
        Arc::new(Running {
            edge,
            path,
            keep: Arc::new(Keep::inherit(state.kept)),
            relieved: tokio::sync::Notify::new(),
            parts: Mutex::new(parts),
            started: Arc::default(),
            stopping: AtomicBool::default(),
            discovery: Discovery::new(state.answers),
            rebalances: Rebalances::inherit(state.rebalances),
            site_runs: SiteRuns::default(),
            site: Arc::new(site),
            reloading: tokio::sync::Mutex::default(),
            drain,
            store,
            refreshes: AtomicU64::default(),
            must_refresh: AtomicBool::default(),
        })
    }

    /// Reads the file again and changes what runs. Returns the changed keys that wait for a restart.
    ///
    /// Errors: every error in the file, or an address that cannot be bound; the old
    /// configuration stays in force.
    pub async fn reload(&self) -> Result<Vec<String>, String> {
        let Some(path) = self.path.clone() else {
            return Err("this process was started without a configuration file".into());
        };
        systemd::reloading();
        let load = move || Config::load(&path).map_err(|faults| faults.to_string());
        let result = match on_file_thread(load).await.and_then(|loaded| loaded) {
            Ok(config) => self.apply(Arc::new(config), Sockets::new()).await,
            Err(faults) => Err(faults),
        };
        let word = if result.is_ok() { "ok" } else { "failed" };
        metrics::get().reloads.with_label_values(&[word]).inc();
        metrics::get().reload_ok.set(result.is_ok().into());
        match &result {
            Ok(waiting) if waiting.is_empty() => log::info!("configuration reloaded"),
            Ok(waiting) => log::warn!(
                "configuration reloaded; changes of these keys wait for a restart: {}",
                waiting.join(", ")
            ),
            Err(e) => log::error!("reload failed, the old configuration stays in force:\n{e}"),
        }
        systemd::serving(match result {
            Ok(_) => "configuration reloaded",
            Err(_) => "reload failed, the old configuration stays in force",
        });
        result
    }

    /// Makes `config` the running configuration. `sockets` are those bound already. Returns the changed keys
    /// that wait for a restart.
    ///
    /// Errors: those of [`Plan::new`], before anything was changed, or a listening socket
    /// that the system refuses.
    pub async fn apply(
        &self,
        config: Arc<Config>,
        sockets: Sockets,
    ) -> Result<Vec<String>, String> {
        let _one = self.reloading.lock().await;
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        let resolver = self.discovery.begin(&config).await?;
        match self.put_in_force(config.clone(), sockets).await {
            Ok(()) => {
                self.discovery.settle(&config, resolver);
                let started = self.started.clone();
                // With 5,000 certificates it takes 10 ms, for which no message should wait.
                let waiting = on_file_thread(move || started.waiting(&config)).await;
                // The configuration is in force, so this is no failure of the reload.
                Ok(waiting.unwrap_or_else(|e| {
                    log::error!("cannot tell which keys wait for a restart: {e}");
                    Vec::new()
                }))
            }
            Err(e) => {
                self.discovery
                    .keep_only(self.parts.lock().config.as_deref());
                Err(e)
            }
        }
    }

    async fn put_in_force(&self, config: Arc<Config>, sockets: Sockets) -> Result<(), String> {
        let Expanded {
            config: expanded,
            found,
        } = self.discovery.expand(&config);
        let is_site = self.site.store.is_some();
        let hashed = config.clone();
        let fingerprint = match is_site {
            true => on_file_thread(move || hashed.fingerprint()).await?,
            false => String::new(),
        };
        let (refreshes, begun) = (self.refreshes.load(Ordering::SeqCst), clock::wall());
        let (names, plan) = (Names::of(&expanded), self.plan(expanded, sockets).await);
        let plan = plan.inspect_err(|_| names.forget(&self.parts.lock()))?;
        first_checks(&plan.nodes).await;
        // Nothing can fail from here on. So a reload that fails has changed nothing.
        self.discovery.found(found);
        let replaced = {
            let mut parts = self.parts.lock();
            if let Some(book) = self.site.orders_of_site() {
                plan.each_table(|table| forget_at_start(&book, table));
            }
            let fresh = parts.settle_nodes(plan.nodes);
            parts.settle_orders();
            if let Some(book) = self.site.orders_of_site() {
                obey_at_start(&book, &fresh);
            }
            self.count_site(&fresh, Instant::now());
            parts.settle_pools(plan.pools);
            let store = std::mem::replace(&mut parts.store, plan.store);
            parts.settle_tickets(plan.ring, plan.tickets);
            let drains = *self.drain.borrow();
            let listeners = if drains { Vec::new() } else { plan.listeners };
            let acceptors = parts.settle_listeners(listeners);
            parts.loaded = Some(begun);
            (parts.config.replace(config), store, acceptors)
        };
        self.join_site();
        self.site.configured(fingerprint);
        self.refresh_if_older(refreshes);
        // To free thousands of certificates takes long.
        tokio::spawn(on_file_thread(move || drop(replaced)));
        self.let_leave().await;
        self.keep.sweep();
        metrics::get().reload_ok.set(1);
        let good = self.parts.lock().all_is_served();
        metrics::get().certificates_ok.set(good.into());
        Ok(())
    }

    /// Shares what the tables of all listeners remember with the other edges.
    fn join_site(&self) {
        let Some(claims) = site::claims() else {
            return;
        };
        claims.use_pools(self.pools());
        let peers: Arc<dyn Peers> = Arc::new(OtherEdges(claims.clone()));
        for listening in self.parts.lock().listeners.values() {
            let table = listening.listener.table.load();
            table.plugins.sticky.iter().for_each(|p| p.join(&peers));
        }
        claims.sweep();
    }

    /// Makes the plan for `config` on a file thread, while everything else goes on.
    async fn plan(&self, config: Config, mut sockets: Sockets) -> Result<Plan, String> {
        let before = {
            let parts = self.parts.lock();
            let before = Before::of(&parts);
            before.take_over(&parts, &config, &mut sockets)?;
            before
        };
        let (keep, edge) = (self.keep.clone(), self.edge.clone());
        let make = move || Plan::new(&config, &before, &keep, &edge, sockets);
        on_file_thread(make).await.and_then(|made| made)
    }

    /// Applies the nodes found now; the configuration stays.
    ///
    /// Errors: those of [`Shift::new`], before anything was changed.
    pub async fn rediscover(&self) -> Result<(), String> {
        let _one = self.reloading.lock().await;
        let Some(config) = self.parts.lock().config.clone() else {
            return Ok(());
        };
        let Expanded { config, found } = self.discovery.expand(&config);
        let refreshes = self.refreshes.load(Ordering::SeqCst);
        let (before, keep) = (Before::of(&self.parts.lock()), self.keep.clone());
        let make = move || Shift::new(&config, &before, &keep);
        let shift = on_file_thread(make).await.and_then(|made| made)?;
        first_checks(&shift.nodes).await;
        self.discovery.found(found);
        {
            let mut parts = self.parts.lock();
            let fresh = parts.settle_nodes(shift.nodes);
            if let Some(book) = self.site.orders_of_site() {
                obey_at_start(&book, &fresh);
            }
            parts.settle_pools(shift.pools);
            for (name, table) in shift.tables {
                if let Some(l) = parts.listeners.get(&name) {
                    l.listener.table.store(Arc::new(table));
                }
            }
        }
        self.refresh_if_older(refreshes);
        self.let_leave().await;
        self.keep.sweep();
        Ok(())
    }

    /// Has changed files read again, if some were put in force since `refreshes` was read: a plan made meanwhile may
    /// have read them before they changed.
    fn refresh_if_older(&self, refreshes: u64) {
        if self.refreshes.load(Ordering::SeqCst) != refreshes {
            self.must_refresh.store(true, Ordering::SeqCst);
        }
    }

    /// Lets nodes that left their DNS answer drain, [`MOMENT`] after the new tables are in use.
    async fn let_leave(&self) {
        let leaving = self.parts.lock().leaving();
        if !leaving.is_empty() {
            tokio::time::sleep(MOMENT).await;
            leaving
                .iter()
                .for_each(|n| n.set_membership(Membership::Leaving));
        }
    }

    /// Returns the file that a reload reads.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Takes ownership of the admin endpoint, and of the one for health.
    pub fn administer(&self, admin: Option<Endpoint>, health: Option<Endpoint>) {
        let mut parts = self.parts.lock();
        (parts.admin, parts.health) = (admin, health);
    }

    /// Closes both endpoints, because their addresses now belong to the successor.
    pub fn leave_admin(&self) {
        self.administer(None, None);
    }

    /// Locks the running parts, for the watchers and the admin endpoint.
    pub(super) fn parts(&self) -> parking_lot::MutexGuard<'_, Parts> {
        self.parts.lock()
    }

    /// Returns another handle of each listening socket, the endpoints' too, with its
    /// configured address.
    pub fn sockets(&self) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let parts = self.parts();
        let listeners = parts.listeners.values().flat_map(|l| &l.loops);
        let mut sockets = listeners
            .map(|l| Ok((l.asked, l.socket()?)))
            .collect::<io::Result<Vec<_>>>()?;
        for endpoint in parts.admin.iter().chain(&parts.health) {
            sockets.push((endpoint.asked, endpoint.socket()?));
        }
        Ok(sockets)
    }

    /// Returns what this process remembers now.
    pub fn handover_state(&self) -> HandoverState {
        let nodes = self.nodes();
        let now = Instant::now();
        let drain = |n: &Arc<Node>| Some(SavedDrain::new(&n.name, &n.terms()?, now));
        let orders = nodes.iter().map(|n| (n.name.clone(), n.ordered()));
        HandoverState {
            kept: self.keep.save(),
            orders: orders.filter(|(_, o)| *o != Order::Up).collect(),
            answers: self.discovery.answers(),
            tickets: self.parts().ring.as_ref().map(|ring| ring.export()),
            rebalances: self.rebalances.save(),
            date: Some(clock::date()),
            drains: nodes.iter().filter_map(drain).collect(),
            book: self.site.book.lock().save(),
        }
    }

    /// Returns all nodes by name; of the same name, nodes that stay come first.
    pub fn listed(&self) -> Vec<Listed> {
        self.parts.lock().listed()
    }

    /// Returns the nodes of the configuration, by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let listed = self.listed().into_iter();
        listed.filter(|l| !l.removed).map(|l| l.node).collect()
    }

    /// Returns all pools.
    pub fn pools(&self) -> Arc<HashMap<PoolId, Arc<Pool>>> {
        self.parts.lock().pools.clone()
    }
}
