//! The process: one Pingora `Server` with our listeners as its background service and our own
//! signal handling.
//!
//! In: a checked configuration. Sockets are bound, or taken over from the running process,
//! before all else. So an error ends the start with a message. Threads start after Pingora
//! has daemonised. Source: FAULTS D54, D69.

mod build_info;
mod daemon;
mod limits;
mod memory;
mod pid_file;
mod signals;
mod threads;
mod upgrade;
mod user;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, GenBackgroundService};
use pushgate_plugins::unix::Shown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::config::{Config, User};
use crate::control::handover::HandoverState;
use crate::control::rebalance::site as site_rebalance;
use crate::control::site::order_book::OrderBook;
use crate::control::site::{Site, exchange, follow};
use crate::control::sockets::{Sockets, bind_all};
use crate::control::{Running, acme, admin, certificates, discovery_watch, expiry, rebalance};
use crate::listener::edge::Edge;
use crate::observe::{access_log, service_log, systemd};
use crate::proxy::hooks::ProxyHooks;
use crate::site::{self, Claims, Store};
use crate::stream::descriptors;

use pid_file::PidFile;
use signals::Signals;
pub use signals::hold as hold_signals;
use upgrade::Predecessor;

/// How to run the process.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The configuration file; a reload reads it again. `None`: there is no file (the demo).
    pub path: Option<PathBuf>,
    /// Whether to run in the background.
    pub daemon: bool,
    /// Whether to take the listening sockets over from the process at `upgrade_socket`.
    pub upgrade: bool,
}

type BoxError = Box<dyn std::error::Error>;

/// Runs the edge until a signal ends it.
///
/// Errors: an address that cannot be bound, a file that cannot be opened; never once clients are served.
pub fn run(config: Config, options: Options) -> Result<(), BoxError> {
    // Read now: once a new program is installed, the system adds "(deleted)" to this path.
    let program = signals::program()?;
    raise_descriptor_limit();
    user::warn_of_root(config.user.as_deref());
    build_info::set();
    access_log::open(&config.log, &config.dir).map_err(|e| format!("access log: {e}"))?;
    let token = admin_token(&config)?;
    let user = config.user.as_deref().and_then(User::named);
    let mut predecessor = match (options.upgrade, upgrade_socket(&config)) {
        (false, Some(path)) if upgrade::is_offered(&path) => {
            return Err(format!(
                "upgrade_socket {}: another process serves there; stop it first, take over from it with -u, or \
                 give this one a socket of its own",
                path.display()
            )
            .into());
        }
        (false, _) => None,
        (true, Some(path)) => Some(Predecessor::at(&path, user.map(|u| u.uid))?),
        (true, None) => return Err("-u: the configuration has no upgrade_socket".into()),
    };
    let inherited = predecessor.as_mut().map(|p| std::mem::take(&mut p.sockets));
    let sockets = bind_all(&config, inherited.unwrap_or_default())?;
    if options.daemon {
        daemon::leave_terminal().map_err(|e| format!("-d: {e}"))?;
    }
    // Behind the fork of a daemon, which would shrink the table again.
    limits::make_room(&config);
    let conf = ServerConf {
        threads: 1,
        grace_period_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let (running, ready) = watch::channel(None);
    let pid_file = config.pid_file.as_ref();
    let pid_file = pid_file.map(|path| PidFile::at(config.dir.join(path)));
    let start = Start {
        config,
        options,
        token,
        sockets,
        predecessor,
        pid_file: pid_file.clone(),
    };
    let service = Service {
        start: Mutex::new(Some(start)),
        running,
    };
    server.add_service(GenBackgroundService::new("edge".into(), Arc::new(service)));
    server.run(RunArgs {
        shutdown_signal: Box::new(Signals {
            running: ready,
            program,
            pid_file,
        }),
    });
    Ok(())
}

/// Raises the soft limit (often 1,024) to the hard one, because each client connection takes two descriptors.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it fails the limit stays as it was.
    let _ = setrlimit(Resource::Nofile, wanted);
    let limit = getrlimit(Resource::Nofile).current;
    descriptors::limited_to(limit.unwrap_or(u64::MAX));
}

fn upgrade_socket(config: &Config) -> Option<PathBuf> {
    config
        .upgrade_socket
        .as_ref()
        .map(|path| config.dir.join(path))
}

fn admin_token(config: &Config) -> Result<Option<String>, BoxError> {
    let Some(path) = config.admin.as_ref().and_then(|a| a.token_file.as_ref()) else {
        return Ok(None);
    };
    let path = config.dir.join(path);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() => Ok(Some(token.to_owned())),
        _ => Err(format!("{}: the first line must be the admin token", path.display()).into()),
    }
}

/// What the service needs when its threads may start.
struct Start {
    config: Config,
    options: Options,
    token: Option<String>,
    sockets: Sockets,
    predecessor: Option<Predecessor>,
    pid_file: Option<PidFile>,
}

struct Service {
    start: Mutex<Option<Start>>,
    running: watch::Sender<Option<Arc<Running>>>,
}

#[async_trait]
impl BackgroundService for Service {
    async fn start(&self, shutdown: ShutdownWatch) {
        let start = self.start.lock().take();
        let Some(start) = start else { return };
        if let Err(e) = self.begin(start).await {
            // The file check has found every error of the file; what fails now is the system.
            log::error!("cannot start: {e}");
            service_log::flush();
            eprintln!("pushgate: cannot start: {e}");
            std::process::exit(1);
        }
        let mut shutdown = shutdown;
        let _ = shutdown.changed().await;
    }
}

impl Service {
    async fn begin(&self, start: Start) -> Result<(), String> {
        service_log::start().map_err(|e| format!("service log: {e}"))?;
        access_log::start().map_err(|e| format!("access log: {e}"))?;
        let Start {
            config,
            options,
            token,
            mut sockets,
            predecessor,
            pid_file,
        } = start;
        let threads = config.threads.or(std::thread::available_parallelism().ok());
        let threads = threads.map_or(1, std::num::NonZeroUsize::get);
        let runtimes = threads::start(threads).map_err(|e| format!("threads: {e}"))?;
        let data = runtimes.data.iter().map(|t| t.runtime.clone()).collect();
        let (drain, draining) = watch::channel(false);
        let log_query = config.log.query;
        let hooks = ProxyHooks { log_query };
        let most = config.max_connections.get();
        let shares = limits::client_shares(&config, threads);
        memory::watch(&config.memory).map_err(|e| format!("memory: {e}"))?;
        let edge = Edge::new(hooks, runtimes, most, shares, draining);
        let (mut state, predecessor) = match predecessor {
            Some(mut p) => (std::mem::take(&mut p.state), Some(p)),
            None => (HandoverState::default(), None),
        };
        let site = begin_site(&config, &mut state).await?;
        let running = Running::new(edge, options.path, drain, state, site);
        let admin = config.admin.clone();
        let health = admin.as_ref().and_then(|a| a.health.clone());
        let mut take = |address| Some((address, sockets.remove(&address)?));
        let admin = admin.and_then(|a| take(a.bind));
        let health = health.and_then(|h| Some((take(h.bind)?, h.paths)));
        let offered = upgrade_socket(&config);
        let user = config.user.clone();
        running.apply(Arc::new(config), sockets).await?;
        let admin =
            admin.map(|(asked, socket)| admin::start(asked, socket, running.clone(), token));
        let health = health.map(|((asked, socket), paths)| {
            admin::health::start(asked, socket, running.clone(), &paths)
        });
        let failed = |e| format!("admin: {e}");
        running.administer(
            admin.transpose().map_err(failed)?,
            health.transpose().map_err(failed)?,
        );
        watch_all(&running);
        if let Some(path) = running.path() {
            log::info!("configuration {}", path.display());
        }
        for (name, address) in running.addresses() {
            log::info!("listener {name} on {}", Shown(address));
        }
        if let Some(name) = user {
            let user = User::named(&name).ok_or_else(|| format!("user: no user `{name}`"))?;
            user::change_to(&name, user)?;
        }
        // As that user, who owns the state folder.
        tokio::spawn(acme::watch(running.clone()));
        // As that user, which a successor also is: a folder that it cannot write is a fault of the first start.
        if predecessor.is_none() {
            pid_file.as_ref().map_or(Ok(()), PidFile::write)?;
        }
        succeed(predecessor, offered, pid_file, &running).await?;
        let (listeners, nodes) = (running.addresses().len(), running.nodes().len());
        systemd::ready(&format!("serving at {listeners} addresses, {nodes} nodes"));
        watchdog::start(data);
        self.running.send_replace(Some(running));
        Ok(())
    }
}

/// Connects to the store of the site, if the file names one, and reads the orders that hold there, so that they are
/// obeyed before the listeners accept. Waits for the store for a second at most.
///
/// Errors: a file that the block `state` names cannot be read or used.
async fn begin_site(
    config: &Config,
    state: &mut HandoverState,
) -> Result<(Option<Arc<Store>>, Site), String> {
    let store = site::store(config)?;
    let book = OrderBook::restore(std::mem::take(&mut state.book));
    let name = config.state.as_ref().and_then(|s| s.name.as_ref());
    let site = Site::new(name.map(ToString::to_string), book, store.clone());
    if let Some(store) = &store {
        let claims = Claims::start(store).map_err(|e| format!("state: {e}"))?;
        tokio::spawn(store.clone().run());
        tokio::spawn(site::renew(claims));
    }
    site.begin().await;
    Ok((store, site))
}

/// Starts what runs until the process ends.
fn watch_all(running: &Arc<Running>) {
    tokio::spawn(certificates::watch(running.clone()));
    tokio::spawn(rebalance::watch(running.clone()));
    tokio::spawn(expiry::watch(running.clone()));
    tokio::spawn(exchange::watch(running.clone()));
    tokio::spawn(follow::watch(running.clone()));
    tokio::spawn(site_rebalance::watch(running.clone()));
    tokio::spawn(discovery_watch::watch(running.clone()));
}

/// Relieves the predecessor, if there is one, and then offers the same to a successor.
///
/// Errors: the predecessor goes on, or no successor could ever take over from this process.
async fn succeed(
    predecessor: Option<Predecessor>,
    offered: Option<PathBuf>,
    pid_file: Option<PidFile>,
    running: &Arc<Running>,
) -> Result<(), String> {
    let is_successor = predecessor.is_some();
    if let Some(predecessor) = predecessor {
        running.resume_rebalances();
        let relieved = tokio::task::spawn_blocking(|| predecessor.relieve()).await;
        let stream = relieved.map_err(|e| e.to_string())??;
        let running = running.clone();
        tokio::spawn(async move {
            upgrade::ended(stream).await;
            running.is_alone();
        });
        // This process has the clients already, so it goes on.
        if let Some(Err(e)) = pid_file.map(|file| file.write()) {
            log::error!("{e}");
        }
    }
    let Some(path) = offered else { return Ok(()) };
    match upgrade::offer(path.clone(), running.clone()) {
        // This process has the clients already, so it serves them although no successor can take over.
        Err(e) if is_successor => log::error!("upgrade_socket {}: {e}", path.display()),
        Err(e) => return Err(format!("upgrade_socket {}: {e}", path.display())),
        Ok(()) => {}
    }
    Ok(())
}
