//! State that all client connections share.

use tokio::sync::watch;

use super::hooks::ProxyHooks;

/// The state that all client connections share.
pub struct Service {
    /// The hooks, which the exchanges call.
    pub hooks: ProxyHooks,
    /// Turns true when the process drains.
    pub drain: watch::Receiver<bool>,
}
