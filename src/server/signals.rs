//! Handles signals, and ends the process.
//!
//! In: signals, or the notice that a successor serves. Out: a reload, a reopened log, a successor, a drain.
//! Pingora's own graceful phase would cut flows that still drain. A signal that comes before the process serves
//! is remembered: a supervisor does not know how far a start has come. Source: FAULTS D69, D70.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::pid_file::PidFile;
use super::watchdog;
use crate::control::Running;
use crate::listener::unix;
use crate::observe::{access_log, systemd};

/// Signals that would end a process without handlers, but mean something else here.
const HELD: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Makes the kernel keep HUP, USR1 and USR2 until `Signals` handles them. Called first of all, because threads
/// inherit it.
pub fn hold() {
    mask(libc::SIG_BLOCK);
}

fn mask(how: libc::c_int) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set, which the other calls then read; none keeps the pointer.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in HELD {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Returns the path by which this process was started, with its symbolic links: a successor then is the version
/// to which they point at that time. If that path is not this program, the program's own path.
///
/// Errors: the system does not tell the program's path.
pub fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let Some(first) = std::env::args_os().next() else {
        return Ok(own);
    };
    let named = match Path::new(&first).components().count() {
        1 => in_path(&first),
        _ => std::path::absolute(&first).ok(),
    };
    let is_own = |path: &PathBuf| path.canonicalize().is_ok_and(|real| real == own);
    Ok(named.filter(is_own).unwrap_or(own))
}

fn in_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = all.find(|file| file.is_file())?;
    std::path::absolute(found).ok()
}

/// TERM, QUIT: after `drain_delay` drain, then end. INT, or a second TERM or QUIT: cut all flows and end at once. HUP: reload. USR1:
/// reopen the access log. USR2: start the program on disk, which takes over.
pub struct Signals {
    /// The running proxy; `None` until it has started.
    pub running: watch::Receiver<Option<Arc<Running>>>,
    /// Path of the program.
    pub program: PathBuf,
    /// Removed at the end.
    pub pid_file: Option<PidFile>,
}

/// Signals that end the process.
struct Ends {
    int: Signal,
    term: Signal,
    quit: Signal,
}

impl Ends {
    /// Resolves at the next of these signals.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Why the process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Now,
    Stopped,
    Relieved,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (mut hup, mut usr1) = (on(SignalKind::hangup()), on(SignalKind::user_defined1()));
        let mut usr2 = on(SignalKind::user_defined2());
        let mut ends = Ends {
            int: on(SignalKind::interrupt()),
            term: on(SignalKind::terminate()),
            quit: on(SignalKind::quit()),
        };
        // This thread gets what came meanwhile.
        mask(libc::SIG_UNBLOCK);
        let (reload, upgrade) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        tokio::spawn(reloads(self.running.clone(), reload.clone()));
        tokio::spawn(upgrades(
            self.running.clone(),
            upgrade.clone(),
            self.program.clone(),
        ));
        let mut relieved = std::pin::pin!(self.relieved());
        let end = loop {
            tokio::select! {
                _ = ends.int.recv() => break End::Now,
                _ = ends.term.recv() => break End::Stopped,
                _ = ends.quit.recv() => break End::Stopped,
                () = &mut relieved => break End::Relieved,
                _ = usr1.recv() => access_log::reopen(),
                _ = usr2.recv() => upgrade.notify_one(),
                _ = hup.recv() => reload.notify_one(),
            }
        };
        if end != End::Relieved {
            systemd::stopping("stopping: waiting for live flows to end");
        }
        let running = self.running.borrow().clone();
        if let Some(running) = running {
            finish(&running, end, &mut ends).await;
        }
        if let Some(pid_file) = &self.pid_file {
            pid_file.remove();
        }
        access_log::flush();
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    /// Resolves when a successor serves.
    async fn relieved(&self) {
        match started(self.running.clone()).await {
            Some(running) => running.relieved.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// Waits until the proxy runs; `None`: it will not.
async fn started(mut running: watch::Receiver<Option<Arc<Running>>>) -> Option<Arc<Running>> {
    let ready = running.wait_for(Option::is_some).await;
    ready.ok().and_then(|running| running.clone())
}

fn on(kind: SignalKind) -> Signal {
    signal(kind).expect("the runtime has signals enabled")
}

/// Reloads each time it is `wanted`, one reload after the other, from the moment the proxy runs.
async fn reloads(running: watch::Receiver<Option<Arc<Running>>>, wanted: Arc<Notify>) {
    let Some(running) = started(running).await else {
        return;
    };
    loop {
        wanted.notified().await;
        // `reload` logs an error and keeps the old configuration.
        let _ = running.reload().await;
    }
}

/// Starts a successor each time it is `wanted`, one after the other, from the moment the proxy runs.
async fn upgrades(
    running: watch::Receiver<Option<Arc<Running>>>,
    wanted: Arc<Notify>,
    program: PathBuf,
) {
    let Some(running) = started(running).await else {
        return;
    };
    loop {
        wanted.notified().await;
        succeed(&program, &running).await;
    }
}

/// Lets the flows end, or cuts them, as the end of the process demands.
async fn finish(running: &Running, end: End, ends: &mut Ends) {
    end_flows(running, end, ends).await;
    unix::remove_all();
}

async fn end_flows(running: &Running, end: End, ends: &mut Ends) {
    match end {
        End::Now => return running.cut().await,
        End::Relieved => {
            watchdog::end();
            // From here on the endpoints' addresses belong to the successor.
            running.leave_admin();
            log::info!("another process has taken over; draining");
        }
        End::Stopped => {
            let delay = running.announce_stop();
            if !delay.is_zero() {
                let shown = humantime::format_duration(delay);
                log::info!("not ready any more; the listeners close in {shown} (`drain_delay`)");
            }
            if tokio::time::timeout(delay, ends.any()).await.is_ok() {
                return cut(running).await;
            }
            log::info!("draining: no new clients, waiting for live flows to end");
        }
    }
    tokio::select! {
        left = running.drain() => log::info!("drained, {left} connections left"),
        () = ends.any() => cut(running).await,
    }
}

async fn cut(running: &Running) {
    log::info!("told to end at once; cutting the live flows");
    running.cut().await;
}

/// Starts the program on disk with `-u`; it takes over once it serves. Returns when it has ended.
async fn succeed(program: &Path, running: &Running) {
    let Some(file) = running.path() else {
        return log::error!("upgrade: this process was started without a configuration file");
    };
    let mut command = tokio::process::Command::new(program);
    command.args(["run", "-u", "-c"]).arg(file);
    // SAFETY: pthread_sigmask(3) may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // A release that knows nothing of held signals would never get them.
            mask(libc::SIG_UNBLOCK);
            Ok(())
        })
    };
    log::info!("upgrade: starting {}", program.display());
    match command.spawn() {
        Err(e) => log::error!("upgrade: cannot start {}: {e}", program.display()),
        Ok(mut child) => match child.wait().await {
            Ok(status) if status.success() => log::info!("upgrade: the successor has ended"),
            Ok(status) => log::error!("upgrade: the successor ended: {status}"),
            Err(e) => log::error!("upgrade: cannot wait for the successor: {e}"),
        },
    }
}
