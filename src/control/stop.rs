//! Ends the running proxy: says that it stops, lets flows end, cuts those that are left.
//!
//! In: the order to stop. Out: closed listeners, ended flows. Source: FAULTS D70.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Running;
use crate::config;

/// Longest time for cut flows to end and be logged.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Running {
    /// Says that no new clients should be sent here, while those that come are still served. Returns how long
    /// that lasts: until balancers in front have noticed.
    pub fn announce_stop(&self) -> Duration {
        self.stopping.store(true, Ordering::Relaxed);
        let parts = self.parts();
        parts
            .config
            .as_ref()
            .map_or(Duration::ZERO, |c| c.drain_delay.0)
    }

    /// Stops accepting, closes idle connections, and waits until all others have ended or the deadline has
    /// passed. Returns the number of connections left.
    pub async fn drain(&self) -> usize {
        let (deadline, listeners) = {
            let mut parts = self.parts();
            // Before the lock goes, so that no reload opens a listener again.
            self.drain.send_replace(true);
            let config = parts.config.as_ref();
            let deadline =
                config.map_or(config::defaults::DRAIN_DEADLINE.0, |c| c.drain_deadline.0);
            (deadline, std::mem::take(&mut parts.listeners))
        };
        let gone = async {
            // A thread may be accepting right now, and its client must be counted first.
            for accepting in listeners.into_values().flat_map(|l| l.loops) {
                accepting.end().await;
            }
            while self.edge.open() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(deadline, gone).await.is_err() {
            self.cut().await;
        }
        self.edge.open()
    }

    /// Resolves when a drain begins.
    pub async fn drains(&self) {
        // The sender lives as long as `self`.
        let _ = self.drain.subscribe().wait_for(|drains| *drains).await;
    }

    /// Cuts all flows, and waits until each has its access line, `LAST_WORDS` at most.
    pub async fn cut(&self) {
        self.listed().iter().for_each(|l| l.node.cut());
        let ended = async {
            while self.edge.open() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, ended).await;
    }
}
