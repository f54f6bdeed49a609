//! The limits of one node, which every pick asks for.
//!
//! In: what is configured, the node's live flows. Out: what its [`FlowLimiter`] says. Most nodes have no limits, and
//! a pick looks at each of them: where there are none, no lock is taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::flow_limiter::{FlowLimiter, Limits};
use crate::config::units::Rate;

/// Limits of one node.
#[derive(Default)]
pub struct NodeLimits {
    limiter: Mutex<Option<FlowLimiter>>,
    /// Whether there is a limiter.
    is_limited: AtomicBool,
    ramping: AtomicBool,
}

impl NodeLimits {
    /// Sets them; true if the slow start that was under way must begin anew, because they are others.
    pub fn set(&self, limits: Limits, now: Instant) -> bool {
        let mut limiter = self.limiter.lock();
        let wanted = (limits != Limits::default()).then_some(limits);
        if limiter.as_ref().map(FlowLimiter::limits) == wanted {
            return false;
        }
        let ramps = limiter.as_ref().is_some_and(FlowLimiter::is_ramping);
        *limiter = wanted.map(|limits| FlowLimiter::new(limits, now));
        self.is_limited.store(limiter.is_some(), Ordering::Release);
        drop(limiter);
        if !ramps {
            self.ramping.store(false, Ordering::Release);
        }
        ramps
    }

    /// Most flows a second.
    pub fn admit_rate(&self) -> Option<Rate> {
        self.limiter.lock().as_ref()?.limits().admit_rate
    }

    /// Whether a slow start is running.
    pub fn is_ramping(&self) -> bool {
        self.ramping.load(Ordering::Acquire)
    }

    /// What the limiter says to `ask`, which is told how many flows are live, and whether that ended a slow start;
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
