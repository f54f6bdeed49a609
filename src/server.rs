//! The process: one Pingora `Server`, our listeners as its background service, our own signals.
//!
//! In: a checked configuration. Sockets are bound first, so that a fault ends the start with a
//! message; threads begin after Pingora has daemonised. Source: FAULTS D54, D70.

mod threads;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::background::{BackgroundService, GenBackgroundService};
use pingora_proxy::HttpProxy;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::Config;
use crate::control::running::{Sockets, bind_all};
use crate::control::{Running, admin, certificates};
use crate::listener::edge::Edge;
use crate::listener::http::Front;
use crate::observe::access_log;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The file, read again on a reload.
    pub path: Option<PathBuf>,
    /// Go into the background.
    pub daemon: bool,
}

type Failure = Box<dyn std::error::Error>;

/// Runs until a signal ends it.
///
/// Errors: an address cannot be bound, a file cannot be opened. Never returns an error once
/// clients are served.
pub fn run(config: Config, options: Options) -> Result<(), Failure> {
    raise_descriptor_limit();
    access_log::open(&config.log.access, &config.dir).map_err(|e| format!("access log: {e}"))?;
    let token = admin_token(&config)?;
    let sockets = bind_all(&config)?;
    let opt = Opt {
        daemon: options.daemon,
        ..Opt::default()
    };
    let conf = ServerConf {
        threads: 1,
        grace_period_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(opt, conf);
    server.bootstrap();
    let (running, ready) = watch::channel(None);
    let start = Start {
        config,
        options,
        token,
        sockets,
        conf: server.configuration.clone(),
    };
    let service = Service {
        start: Mutex::new(Some(start)),
        running,
    };
    server.add_service(GenBackgroundService::new("edge".into(), Arc::new(service)));
    server.run(RunArgs {
        shutdown_signal: Box::new(Signals { running: ready }),
    });
    Ok(())
}

/// Every client connection takes two descriptors; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the one struct given.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

fn admin_token(config: &Config) -> Result<Option<String>, Failure> {
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

/// What the service needs once, when its threads may begin.
struct Start {
    config: Config,
    options: Options,
    token: Option<String>,
    sockets: Sockets,
    conf: Arc<ServerConf>,
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
            // Every fault a file can have was found before; what is left is the system's.
            log::error!("cannot start: {e}");
            eprintln!("pushgate: cannot start: {e}");
            std::process::exit(1);
        }
        let mut shutdown = shutdown;
        let _ = shutdown.changed().await;
    }
}

impl Service {
    async fn begin(&self, start: Start) -> Result<(), String> {
        access_log::start().map_err(|e| format!("access log: {e}"))?;
        let Start {
            config,
            options,
            token,
            mut sockets,
            conf,
        } = start;
        let threads = config.threads.or(std::thread::available_parallelism().ok());
        let threads = threads.map_or(1, std::num::NonZeroUsize::get);
        let runtimes = threads::start(threads).map_err(|e| format!("threads: {e}"))?;
        let (drain, draining) = watch::channel(false);
        let mut proxy = HttpProxy::new(
            Front {
                log_query: config.log.query,
            },
            conf,
        );
        proxy.handle_init_modules();
        let edge = Edge::new(proxy, runtimes, config.max_connections.get(), draining);
        let running = Running::new(edge, options.path, drain);
        let admin_socket = config.admin.as_ref().and_then(|a| sockets.remove(&a.bind));
        running.apply(Arc::new(config), sockets).await?;
        if let Some(socket) = admin_socket {
            let socket =
                tokio::net::TcpListener::from_std(socket).map_err(|e| format!("admin: {e}"))?;
            tokio::spawn(admin::serve(socket, running.clone(), token));
        }
        tokio::spawn(certificates::watch(running.clone()));
        for (name, address) in running.addresses() {
            log::info!("listener {name} on {address}");
        }
        self.running.send_replace(Some(running));
        Ok(())
    }
}

/// SIGTERM, SIGQUIT: drain, then end. SIGINT, or a second one: end at once. SIGHUP: reload.
/// SIGUSR1: open the log again. Pingora's graceful phase would cut what still drains.
struct Signals {
    running: watch::Receiver<Option<Arc<Running>>>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let on = |kind| signal(kind).expect("the runtime has signals enabled");
        let (mut hup, mut usr1) = (on(SignalKind::hangup()), on(SignalKind::user_defined1()));
        let (mut int, mut term) = (on(SignalKind::interrupt()), on(SignalKind::terminate()));
        let mut quit = on(SignalKind::quit());
        let running = || self.running.borrow().clone();
        loop {
            tokio::select! {
                _ = int.recv() => return ShutdownSignal::FastShutdown,
                _ = term.recv() => break,
                _ = quit.recv() => break,
                _ = usr1.recv() => access_log::reopen(),
                _ = hup.recv() => if let Some(running) = running() {
                    // A fault is logged there; the old configuration stays.
                    tokio::spawn(async move { running.reload().await });
                },
            }
        }
        if let Some(running) = running() {
            log::info!("draining");
            tokio::select! {
                left = running.drain() => log::info!("drained, {left} connections left"),
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = quit.recv() => {}
            }
        }
        access_log::flush();
        ShutdownSignal::FastShutdown
    }
}
