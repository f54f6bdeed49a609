//! Handles signals, and ends the process.
//!
//! In: signals, or the notice that a successor serves. Out: a reload, a reopened log, a successor, a drain.
//! Pingora's own graceful phase would cut flows that still drain. Source: FAULTS D69, D70.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::systemd::notify;
use crate::control::Running;
use crate::observe::access_log;

/// TERM, QUIT: drain, then end. INT, or a second TERM or QUIT: end at once. HUP: reload. USR1: reopen the
/// access log. USR2: start the program on disk, which takes over.
pub struct Signals {
    /// The running proxy; `None` until it has started.
    pub running: watch::Receiver<Option<Arc<Running>>>,
    /// Path of the program.
    pub program: PathBuf,
}

/// Signals that end the process.
struct Ends {
    int: Signal,
    term: Signal,
    quit: Signal,
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
        let running = || self.running.borrow().clone();
        let mut relieved = std::pin::pin!(self.relieved());
        let successor = loop {
            tokio::select! {
                _ = ends.int.recv() => return ShutdownSignal::FastShutdown,
                _ = ends.term.recv() => break false,
                _ = ends.quit.recv() => break false,
                () = &mut relieved => break true,
                _ = usr1.recv() => access_log::reopen(),
                _ = usr2.recv() => if let Some(running) = running() {
                    tokio::spawn(succeed(self.program.clone(), running));
                },
                _ = hup.recv() => if let Some(running) = running() {
                    // `reload` logs an error and keeps the old configuration.
                    tokio::spawn(async move { running.reload().await });
                },
            }
        };
        if !successor {
            notify(&[NotifyState::Stopping]);
        }
        if let Some(running) = running() {
            drain(&running, successor, &mut ends).await;
        }
        access_log::flush();
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    /// Resolves when a successor serves.
    async fn relieved(&self) {
        let mut running = self.running.clone();
        let ready = running.wait_for(Option::is_some).await;
        match ready.ok().and_then(|r| r.clone()) {
            Some(running) => running.relieved.notified().await,
            None => std::future::pending().await,
        }
    }
}

fn on(kind: SignalKind) -> Signal {
    signal(kind).expect("the runtime has signals enabled")
}

async fn drain(running: &Running, successor: bool, ends: &mut Ends) {
    if successor {
        // From here on the endpoint's address belongs to the successor.
        running.leave_admin();
        log::info!("another process has taken over; draining");
    } else {
        log::info!("draining: no new clients, waiting for live flows to end");
    }
    tokio::select! {
        left = running.drain() => log::info!("drained, {left} connections left"),
        _ = ends.int.recv() => {}
        _ = ends.term.recv() => {}
        _ = ends.quit.recv() => {}
    }
}

/// Starts the program on disk with `-u`; it takes over once it serves.
async fn succeed(program: PathBuf, running: Arc<Running>) {
    let Some(file) = running.path() else {
        return log::error!("upgrade: this process was started without a configuration file");
    };
    let mut command = tokio::process::Command::new(&program);
    command.args(["run", "-u", "-c"]).arg(file);
    log::info!("upgrade: starting {}", program.display());
    match command.spawn() {
        Err(e) => log::error!("upgrade: cannot start {}: {e}", program.display()),
        Ok(mut child) => match child.wait().await {
            Ok(status) => log::error!("upgrade: the successor ended: {status}"),
            Err(e) => log::error!("upgrade: cannot wait for the successor: {e}"),
        },
    }
}
