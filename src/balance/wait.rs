//! Flows that wait for a node of their pool: at run time, with sockets behind them.
//!
//! In: flows for which every node is at its limit. Out: each in its turn ([`FairQueue`]), or a refusal
//! when too many wait or one has waited too long. One task a pool, as long as somebody waits.
//! Source: DESIGN of the reconnect storm.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Pool;
use super::queue::{FairQueue, Pushed};
use crate::config;
use crate::observe::metrics;
use crate::upstream::flow_limiter::Room;

/// The waiting room of a pool.
pub struct Waiting {
    state: Mutex<State>,
    len: AtomicUsize,
    patience: Duration,
}

struct State {
    queue: FairQueue<oneshot::Sender<Turn>>,
    /// A task is calling flows up.
    calling: bool,
    /// Nobody waits here any more: the pool has a successor.
    dissolved: bool,
}

/// Why a flow waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// Too many wait, this one's address not fewer than others.
    Full,
    /// It has waited for `queue_timeout`.
    Late,
    /// Its client has left.
    Gone,
}

impl WaitError {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitError::Full => "full",
            WaitError::Late => "late",
            WaitError::Gone => "gone",
        }
    }
}

/// Counts a wait when it is dropped: one whose caller dropped it was left by its client.
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

/// A flow's turn. The next one is called when it is dropped.
struct Turn {
    used: bool,
    over: Option<oneshot::Sender<bool>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            // The caller has gone only with its runtime.
            let _ = over.send(self.used);
        }
    }
}

/// Longest pause between two looks for room: flows end and nodes return without a word.
const LOOK: Duration = Duration::from_millis(10);
/// Shortest pause, the timer's grain, also after a turn that found no room after all.
const PAUSE: Duration = Duration::from_millis(1);

impl Waiting {
    pub(super) fn new(conf: &config::Pool) -> Self {
        Waiting {
            state: Mutex::new(State {
                queue: FairQueue::new(conf.queue as usize),
                calling: false,
                dissolved: false,
            }),
            len: AtomicUsize::new(0),
            patience: conf.queue_timeout.0,
        }
    }

    /// Flows that wait.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Says how many wait: a simulation's queue is its own, and newcomers must stand behind it.
    pub fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Release);
    }

    /// Sends away who waits, in turn, and whoever still comes.
    pub(super) fn dissolve(&self) {
        let mut state = self.state.lock();
        state.dissolved = true;
        while let Some(waits) = state.queue.pop() {
            drop(waits);
        }
        self.len.store(0, Ordering::Release);
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Pool {
    /// Has a flow of `client` wait until `decide`, called in its turn, finds it a node; it answers
    /// `None` as long as there is none. `left` ends when the client leaves: a node that is given a flow
    /// nobody waits for has less for those who do.
    ///
    /// Errors: why it waits no longer.
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
                // Nodes of a pool that was replaced may never have room again.
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

    /// Waits for a turn; `None`: refused.
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
        // Whoever lost the place to another address sees its sender dropped.
        turn.await.ok()
    }
}

/// A flow's place in the queue, given up when it waits no longer.
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

/// Calls up one flow after the other, as there is room, until nobody waits.
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
