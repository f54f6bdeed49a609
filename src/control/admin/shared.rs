//! State that the handlers of the admin endpoint share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::control::Running;

/// State of the endpoint.
pub(super) struct Admin {
    pub(super) running: Arc<Running>,
    pub(super) token: Option<String>,
    /// Number of open dashboards.
    pub(super) watchers: AtomicUsize,
}
