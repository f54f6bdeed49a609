//! The limits of one node. Every pick asks for them.
//!
//! In: the configured limits, the node's live flows. Out: the answer of its [`FlowLimiter`]. Most nodes have no
//! limits, and a pick asks each node, so a node without limits takes no lock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::flow_limiter::{FlowLimiter, Limits};
use super::site_share::SiteShare;

/// The limits of one node.
#[derive(Default)]
pub struct NodeLimits {
    limiter: Mutex<Option<FlowLimiter>>,
    /// Whether there is a limiter.
    is_limited: AtomicBool,
    ramping: AtomicBool,
    /// Most flows here, stuck ones too, plus one; 0: any number.
    hard: AtomicUsize,
    /// Number of edges that share the limits; 0: this one alone.
    edges: AtomicUsize,
}

impl NodeLimits {
    /// Sets the limits. Returns whether a running slow start must begin anew, because the limits changed.
    pub fn set(&self, limits: Limits, now: Instant) -> bool {
        let mut limiter = self.limiter.lock();
        let wanted = (limits != Limits::default()).then_some(limits);
        if limiter.as_ref().map(FlowLimiter::limits) == wanted {
            return false;
        }
        let ramps = limiter.as_ref().is_some_and(FlowLimiter::is_ramping);
        *limiter = wanted.map(|limits| FlowLimiter::new(limits, now));
        if let Some(limiter) = limiter.as_mut() {
            limiter.share_evenly(self.edges.load(Ordering::Relaxed).max(1), now);
        }
        self.note_hard(limiter.as_ref());
        self.is_limited.store(limiter.is_some(), Ordering::Release);
        drop(limiter);
        if !ramps {
            self.ramping.store(false, Ordering::Release);
        }
        ramps
    }

    /// Uses only `share` of the limits from now on, because other edges use the rest.
    pub fn share(&self, share: SiteShare, now: Instant) {
        self.edges.store(share.edges, Ordering::Relaxed);
        let mut limiter = self.limiter.lock();
        if let Some(limiter) = limiter.as_mut() {
            limiter.share(share, now);
        }
        self.note_hard(limiter.as_ref());
    }

    /// Uses an even part of the limits, because only the number of edges is known.
    pub fn share_evenly(&self, edges: usize, now: Instant) {
        self.edges.store(edges, Ordering::Relaxed);
        let mut limiter = self.limiter.lock();
        if let Some(limiter) = limiter.as_mut() {
            limiter.share_evenly(edges, now);
        }
        self.note_hard(limiter.as_ref());
    }

    fn note_hard(&self, limiter: Option<&FlowLimiter>) {
        let hard = limiter.and_then(FlowLimiter::most_hard);
        let hard = hard.map_or(0, |hard| hard.saturating_add(1));
        self.hard.store(hard, Ordering::Relaxed);
    }

    /// Returns the limits of the node; none where there are no limits.
    pub fn limits(&self) -> Limits {
        let limiter = self.limiter.lock();
        limiter
            .as_ref()
            .map(FlowLimiter::limits)
            .unwrap_or_default()
    }

    /// Returns the most flows that this edge may have at the node: of those that are not stuck to it, and of any kind.
    pub fn ceilings(&self) -> (Option<usize>, Option<usize>) {
        let limiter = self.limiter.lock();
        let limiter = limiter.as_ref();
        (
            limiter.and_then(FlowLimiter::most),
            limiter.and_then(FlowLimiter::most_hard),
        )
    }

    /// Whether a node with `live` flows at this edge takes no more, not even stuck ones. A flow counts only when it has entered,
    /// so each thread may exceed the limit by one.
    pub fn is_full(&self, live: usize) -> bool {
        let hard = self.hard.load(Ordering::Relaxed);
        hard > 0 && live >= hard - 1
    }

    /// Returns the most flows a second that the balancer of this edge may give it.
    pub fn admits(&self) -> Option<f64> {
        self.limiter.lock().as_ref()?.admits()
    }

    /// Whether a slow start is running.
    pub fn is_ramping(&self) -> bool {
        self.ramping.load(Ordering::Acquire)
    }

    /// Asks the limiter, with the number of live flows. Returns its answer and whether that ended a slow start;
    /// `None`: there are no limits.
    pub fn ask<T>(
        &self,
        live: impl FnOnce() -> usize,
        ask: impl FnOnce(&mut FlowLimiter, usize) -> T,
    ) -> Option<(T, bool)> {
        if !self.is_limited.load(Ordering::Acquire) {
            return None;
        }
        let mut limiter = self.limiter.lock();
        let answer = ask(limiter.as_mut()?, live());
        let ramps = limiter.as_ref().is_some_and(FlowLimiter::is_ramping);
        drop(limiter);
        let ended = self.ramping.swap(ramps, Ordering::AcqRel) && !ramps;
        Some((answer, ended))
    }
}
