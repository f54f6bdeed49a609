//! State that the handlers of the admin endpoint share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::control::Running;
use crate::observe::metrics;

/// State of the endpoint.
pub(super) struct Admin {
    pub(super) running: Arc<Running>,
    pub(super) token: Option<String>,
    /// Number of open dashboards.
    pub(super) watchers: AtomicUsize,
}

/// Counts a request or a connection that was refused.
pub(super) fn refused(reason: &str) {
    let refused = &metrics::get().admin_refused;
    refused.with_label_values(&[reason]).inc();
}
