//! Counts open client connections, and enforces their limit.
//!
//! In: accepted sockets. Out: a guard for each, which the connection holds. Source: FAULTS D54.

use std::ops::Deref;
use std::sync::Arc;

use super::listener::Listener;
use super::threads::{Seat, Thread};
use crate::observe::metrics;

/// The open client connections of all listeners. The threads that serve them keep the counts.
pub struct Connections {
    threads: Arc<[Thread]>,
    most: i64,
}

/// The listener of an open client connection. The connection counts until this is dropped.
pub struct Open {
    listener: Arc<Listener>,
    /// Its place on the thread that serves it.
    _seat: Seat,
}

impl Connections {
    /// Counts the connections of `threads`, and allows at most `most`.
    pub fn at_most(most: usize, threads: Arc<[Thread]>) -> Self {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Connections { threads, most }
    }

    /// Counts the connections that are open now.
    pub fn open(&self) -> usize {
        usize::try_from(self.sum()).unwrap_or_default()
    }

    fn sum(&self) -> i64 {
        self.threads.iter().map(Thread::connections).sum()
    }

    /// Counts one more connection of `listener` on `thread`; `None`: the limit is reached. If several threads
    /// accept at the limit, each may refuse its client although one place is left.
    pub fn enter(&self, listener: &Arc<Listener>, thread: &Thread) -> Option<Open> {
        let seat = thread.seat();
        if self.sum() > self.most {
            return None;
        }
        metrics::get()
            .connections
            .with_label_values(&[&listener.name])
            .inc();
        Some(Open {
            listener: listener.clone(),
            _seat: seat,
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
        metrics::get()
            .connections
            .with_label_values(&[&self.listener.name])
            .dec();
    }
}
