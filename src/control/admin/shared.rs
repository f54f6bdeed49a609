//! What the handlers of the admin endpoint share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::control::Running;

/// The endpoint, as its handlers see it.
pub(super) struct Admin {
    pub(super) running: Arc<Running>,
    pub(super) token: Option<String>,
    /// Number of open dashboards.
    pub(super) watchers: AtomicUsize,
}
