//! Remembers the configuration that the process started with, of which a reload leaves some keys as they are.

use std::sync::{Arc, OnceLock};

use crate::config::Config;
use crate::observe::metrics;

/// The first configuration that was put in force.
#[derive(Default)]
pub struct Started(OnceLock<Arc<Config>>);

impl Started {
    /// Returns the keys of `config` that wait for a restart, and counts them in the metric. The first call
    /// remembers its configuration.
    pub fn waiting(&self, config: &Arc<Config>) -> Vec<String> {
        let waiting = config.waiting(self.0.get_or_init(|| config.clone()));
        metrics::get().restart_keys.set(waiting.len() as i64);
        waiting
    }
}
