//! The limits of one node. Every pick asks for them.
//!
//! In: the configured limits, the node's live flows. Out: the answer of its [`FlowLimiter`]. Most nodes have no
//! limits, and a pick asks each node, so a node without limits takes no lock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::flow_limiter::{FlowLimiter, Limits};
use crate::config::units::Rate;

/// The limits of one node.
#[derive(Default)]
pub struct NodeLimits {
    limiter: Mutex<Option<FlowLimiter>>,
    /// Whether there is a limiter.
    is_limited: AtomicBool,
    ramping: AtomicBool,
    /// Most flows, stuck ones too; 0: any number.
    hard: AtomicUsize,
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
        let hard = limits.max_flows_hard.unwrap_or_default();
        self.hard.store(hard, Ordering::Relaxed);
        *limiter = wanted.map(|limits| FlowLimiter::new(limits, now));
        self.is_limited.store(limiter.is_some(), Ordering::Release);
        drop(limiter);
        if !ramps {
            self.ramping.store(false, Ordering::Release);
        }
        ramps
    }

    /// Whether a node with `live` flows takes no more, not even stuck ones. A flow counts only when it has entered,
    /// so each thread may exceed the limit by one.
    pub fn is_full(&self, live: usize) -> bool {
        let hard = self.hard.load(Ordering::Relaxed);
        hard > 0 && live >= hard
    }

    /// Returns the most flows a second that the balancer may give it.
    pub fn admit_rate(&self) -> Option<Rate> {
        self.limiter.lock().as_ref()?.limits().admit_rate
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
