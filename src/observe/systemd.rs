//! Notifies systemd of the state of the process: starting, serving, reloading, stopping, and signs of life.
//!
//! In: a state. Out: a datagram to systemd, if it runs the process. Source: sd_notify(3).

use sd_notify::NotifyState;

/// Says that the process serves, and which process that is; `said` is for `systemctl status`.
pub fn ready(said: &str) {
    let main = NotifyState::MainPid(std::process::id());
    notify(&[NotifyState::Ready, main, NotifyState::Status(said)]);
}

/// Says that a reload begins. systemd pairs it with the next [`serving`] by the time of the monotonic clock.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(e) => log::warn!("systemd: {e}"),
    }
}

/// Says that the process serves again; `said` is for `systemctl status`.
pub fn serving(said: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(said)]);
}

/// Says that the process will end, and what it waits for.
pub fn stopping(said: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(said)]);
}

/// Says that the process is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("systemd: {e}");
    }
}
