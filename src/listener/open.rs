//! The count of open client connections, and its limit.
//!
//! In: accepted sockets. Out: a guard each, which the connection keeps. Source: FAULTS D54.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::accept::Listener;
use crate::observe::metrics;

/// Client connections of all listeners.
pub struct Connections {
    open: Arc<AtomicUsize>,
    most: usize,
}

/// The listener of an open client connection, which is counted until this is dropped.
pub struct Open {
    all: Arc<AtomicUsize>,
    listener: Arc<Listener>,
}

impl Connections {
    /// None yet, and at most so many.
    pub fn at_most(most: usize) -> Self {
        Connections {
            open: Arc::default(),
            most,
        }
    }

    /// Open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts one more of `listener`; `None`: there are as many as may be.
    pub fn enter(&self, listener: &Arc<Listener>) -> Option<Open> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        metrics::get()
            .connections
            .with_label_values(&[&listener.name])
            .inc();
        Some(Open {
            all: self.open.clone(),
            listener: listener.clone(),
        })
    }
}

impl Deref for Open {
    type Target = Arc<Listener>;

    fn deref(&self) -> &Arc<Listener> {
        &self.listener
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        metrics::get()
            .connections
            .with_label_values(&[&self.listener.name])
            .dec();
    }
}
