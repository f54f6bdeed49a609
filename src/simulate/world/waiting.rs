//! Flows that wait while every node is at its limit, in the edge's own order of turns.
//!
//! The edge's queue is one of tasks; this is the same [`FairQueue`] on the run's clock. The pool is told how
//! many wait, so that a newcomer goes behind them though it finds room.

use std::sync::Arc;
use std::time::Duration;

use super::{Event, World, nanos};
use crate::balance::Pool;
use crate::balance::queue::{FairQueue, Pushed};
use crate::upstream::flow_limiter::Room;

/// Longest pause between two looks for room, as the edge's.
const LOOK: Duration = Duration::from_millis(10);
/// Shortest, as the edge's.
const PAUSE: Duration = Duration::from_millis(1);

/// The queue of the pool that is asked.
pub(super) struct Waiting {
    pool: Arc<Pool>,
    queue: FairQueue<usize>,
    patience: Duration,
    calling: bool,
}

impl Waiting {
    /// Flows that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Tells the pool how many wait.
    fn tell(&self) {
        self.pool.waiting.set_len(self.queue.len());
    }
}

impl World<'_> {
    /// Every node is at its limit: the client waits, or another in its place is refused.
    pub(super) fn wait(&mut self, client: usize, pool: Arc<Pool>) {
        let conf = self.config.pools.get(&pool.name);
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            queue: FairQueue::new(conf.map_or(0, |c| c.queue as usize)),
            patience: conf.map_or(Duration::ZERO, |c| c.queue_timeout.0),
            pool,
            calling: false,
        });
        let c = &mut self.clients[client];
        let first = c.waits.is_none();
        let out = match waiting.queue.push(c.address, client) {
            Pushed::Waits(id) => {
                c.waits = Some(id);
                None
            }
            Pushed::Instead(id, other) => {
                c.waits = Some(id);
                Some(other)
            }
            Pushed::Refused => Some(client),
        };
        waiting.tell();
        if first && out != Some(client) {
            let late = self.now + nanos(waiting.patience);
            self.events.add(late, Event::Late(client, c.epoch));
        }
        if !std::mem::replace(&mut waiting.calling, true) {
            self.events.add(self.now, Event::Turn);
        }
        if let Some(other) = out {
            self.turn_away(other);
        }
    }

    /// Gives the next flow its turn, if there is room.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        let now = self.instant();
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        if waiting.queue.is_empty() {
            waiting.calling = false;
            return Ok(());
        }
        let pause = match waiting.pool.room(now) {
            Room::Open => Duration::ZERO,
            Room::In(wait) => wait.clamp(PAUSE, LOOK),
            Room::Full => LOOK,
        };
        let next = if pause.is_zero() {
            waiting.queue.pop()
        } else {
            None
        };
        waiting.tell();
        if let Some(client) = next {
            let place = self.clients[client].waits;
            self.ask(client, true)?;
            // In another place it waits again.
            let waits = &mut self.clients[client].waits;
            *waits = waits.take().filter(|w| Some(*w) != place);
        }
        // A turn that found no room after all costs the shortest pause.
        let lost = next.is_some_and(|c| self.clients[c].waits.is_some());
        let pause = if lost { PAUSE } else { pause };
        self.events.add(self.now + nanos(pause), Event::Turn);
        Ok(())
    }

    /// The client has waited long enough.
    pub(super) fn late(&mut self, client: usize, epoch: u32) {
        let c = &self.clients[client];
        if let (Some(id), true, Some(waiting)) = (c.waits, c.epoch == epoch, &mut self.waiting) {
            waiting.queue.remove(c.address, id);
            waiting.tell();
            self.turn_away(client);
        }
    }

    /// The client waits no longer, because it has gone.
    pub(super) fn leave_queue(&mut self, client: usize) {
        let c = &mut self.clients[client];
        if let (Some(id), Some(waiting)) = (c.waits.take(), &mut self.waiting) {
            waiting.queue.remove(c.address, id);
            waiting.tell();
        }
    }

    fn turn_away(&mut self, client: usize) {
        self.clients[client].waits = None;
        // Twice the time the queue needs, as the edge says.
        let spread = self.waiting.as_ref();
        let spread = spread.map_or(Duration::ZERO, |w| 2 * w.pool.time_for(w.queue.len()));
        self.refuse(client, spread);
    }
}
