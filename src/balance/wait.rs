//! Makes flows wait for a node of their pool: the part of the queue that has tasks and timers.
//!
//! In: flows for which every node is at its limit, and flows that come while others wait. Out: each flow in its
//! turn ([`FairQueue`](super::queue::FairQueue)), or a refusal. While flows wait, one task per pool calls them up.
//! Source: docs/operations.md, "Reconnect storms".

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Pool;
use super::queue::Pushed;
use super::waiting::Turn;
use crate::observe::metrics;
use crate::upstream::flow_limiter::Room;

/// Why a flow stopped waiting without a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// It found the queue full, or lost its place to another address (see [`Pushed`]).
    Full,
    /// It has waited for `queue_timeout`.
    Late,
    /// Its client has left.
    Gone,
}

impl WaitError {
    /// Returns the word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitError::Full => "full",
            WaitError::Late => "late",
            WaitError::Gone => "gone",
        }
    }
}

/// Records a wait in the metrics when dropped. If `in_turn` itself is dropped, the client has left: `Gone`.
struct Told<'a> {
    pool: &'a str,
    began: Instant,
    refused: Option<WaitError>,
}

impl<'a> Told<'a> {
    fn begin(pool: &'a str) -> Self {
        Told {
            pool,
            began: Instant::now(),
            refused: Some(WaitError::Gone),
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let (m, waited) = (metrics::get(), self.began.elapsed());
        m.queue_seconds
            .with_label_values(&[self.pool])
            .observe(waited.as_secs_f64());
        if let Some(refused) = self.refused {
            m.queue_refused
                .with_label_values(&[self.pool, refused.as_str()])
                .inc();
        }
    }
}

/// Longest pause between two looks for room; needed because nothing tells this task that a flow ended.
const LOOK: Duration = Duration::from_millis(10);
/// Shortest pause while there is no room (the timer's resolution), also after a turn that led to no decision.
const PAUSE: Duration = Duration::from_millis(1);

impl Pool {
    /// Lets a flow of `client` wait until `decide`, called in its turn, returns a decision, which may be that no node
    /// can serve. If it returns `None`, there was no room after all: the flow joins the queue again behind the other
    /// flows of its address, and may then be refused. `left` resolves when the client leaves: the flow then gives up
    /// its place, so that no room is spent on it.
    ///
    /// Errors: why the flow stopped waiting.
    pub async fn in_turn<T>(
        self: &Arc<Self>,
        client: IpAddr,
        left: impl Future<Output = ()>,
        mut decide: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut left = pin!(left);
        let mut told = Told::begin(&self.name);
        let until = tokio::time::Instant::from_std(told.began + self.waiting.patience);
        let mut pool = self.current();
        let result = loop {
            let turn = tokio::select! {
                biased;
                () = &mut left => break Err(WaitError::Gone),
                turn = pool.turn(client) => turn,
                () = tokio::time::sleep_until(until) => break Err(WaitError::Late),
            };
            let Some(mut turn) = turn else {
                // The nodes of a replaced pool may never have room again.
                let current = pool.current();
                if Arc::ptr_eq(&current, &pool) {
                    break Err(WaitError::Full);
                }
                pool = current;
                continue;
            };
            if let Some(decided) = decide() {
                turn.used = true;
                break Ok(decided);
            }
        };
        told.refused = result.as_ref().err().copied();
        result
    }

    /// Waits for a turn. `None`: the queue had no place, the place was lost to another address, or the pool was
    /// replaced (the flow then queues at the new pool).
    async fn turn(self: &Arc<Self>, client: IpAddr) -> Option<Turn> {
        let (mine, turn) = oneshot::channel();
        let id = {
            let mut state = self.waiting.state.lock();
            if state.dissolved {
                return None;
            }
            let pushed = state.queue.push(client, mine);
            self.waiting.len.store(state.queue.len(), Ordering::Release);
            if !std::mem::replace(&mut state.calling, true) {
                tokio::spawn(call_up(self.clone()));
            }
            match pushed {
                Pushed::Waits(id) | Pushed::Instead(id, _) => id,
                Pushed::Refused => return None,
            }
        };
        let _place = Place {
            pool: self,
            client,
            id,
        };
        // A flow that lost its place to another address finds its sender dropped.
        turn.await.ok()
    }
}

/// A flow's place in the queue; given up when dropped.
struct Place<'a> {
    pool: &'a Arc<Pool>,
    client: IpAddr,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waiting = &self.pool.waiting;
        let mut state = waiting.state.lock();
        state.queue.remove(self.client, self.id);
        waiting.len.store(state.queue.len(), Ordering::Release);
    }
}

/// Calls up one flow after another as room allows, until no flow waits.
async fn call_up(pool: Arc<Pool>) {
    loop {
        let pause = match pool.room(Instant::now()) {
            Room::Open => Duration::ZERO,
            Room::In(wait) => wait.clamp(PAUSE, LOOK),
            Room::Full => LOOK,
        };
        let next = {
            let mut state = pool.waiting.state.lock();
            let next = match pause.is_zero() {
                true => state.queue.pop(),
                false => None,
            };
            pool.waiting.len.store(state.queue.len(), Ordering::Release);
            if next.is_none() && state.queue.is_empty() {
                state.calling = false;
                return;
            }
            next
        };
        let Some(next) = next else {
            tokio::time::sleep(pause).await;
            continue;
        };
        let (over, done) = oneshot::channel();
        let turn = Turn {
            used: false,
            over: Some(over),
        };
        // A flow that has just given up drops its turn at once.
        drop(next.send(turn));
        if !done.await.unwrap_or(false) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
