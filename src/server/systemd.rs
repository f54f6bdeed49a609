//! Notifies systemd of the state of the process.

use sd_notify::NotifyState;

/// Notifies systemd, if it runs the process.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("systemd: {e}");
    }
}
