//! The queue of flows that wait while every node is at its limit, in the edge's own order of turns.
//!
//! The edge's queue holds tasks; this is the same [`FairQueue`] on the run's clock. It reports its length
//! to the pool, so that a new flow queues behind the waiting ones even if a node has room.

use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::api::PoolId;

use super::World;
use super::event::{Event, nanos};
use super::waiting::Waiting;
use crate::balance::Pool;
use crate::balance::queue::{FairQueue, Pushed};
use crate::upstream::flow_limiter::Room;

/// Longest pause between two looks for room, as in the edge.
const LOOK: Duration = Duration::from_millis(10);
/// Shortest such pause, as in the edge.
const PAUSE: Duration = Duration::from_millis(1);

impl World<'_> {
    /// Queues the client, because every node is at its limit. If the queue is full, it refuses this client
    /// or another one in its place.
    pub(super) fn wait(&mut self, client: usize, edge: usize, pool: Arc<Pool>) {
        let conf = self.config.pools.get(&pool.name);
        let id = (edge, pool.id);
        let waiting = self.waiting.entry(id).or_insert_with(|| Waiting {
            queue: FairQueue::new(conf.map_or(0, |c| c.queue as usize)),
            patience: conf.map_or(Duration::ZERO, |c| c.queue_timeout.0),
            pool,
            calling: false,
        });
        let c = &mut self.clients[client];
        let first = c.waits.is_none();
        let out = match waiting.queue.push(c.address, client) {
            Pushed::Waits(place) => {
                c.waits = Some((edge, id.1, place));
                None
            }
            Pushed::Instead(place, other) => {
                c.waits = Some((edge, id.1, place));
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
            self.events.add(self.now, Event::Turn(id));
        }
        if let Some(other) = out {
            self.turn_away(other, id);
        }
    }

    /// Gives the next flow of a pool its turn, if a node has room, and schedules the next turn.
    pub(super) fn turn(&mut self, queue: (usize, PoolId)) -> Result<(), String> {
        let now = self.instant();
        let Some(waiting) = self.waiting.get_mut(&queue) else {
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
            self.ask(client, queue.0, true)?;
            // If `ask` queued the client again, it keeps its new number.
            let waits = &mut self.clients[client].waits;
            *waits = waits.take().filter(|w| Some(*w) != place);
        }
        // A turn that found no room in the end costs the shortest pause.
        let lost = next.is_some_and(|c| self.clients[c].waits.is_some());
        let pause = if lost { PAUSE } else { pause };
        self.events.add(self.now + nanos(pause), Event::Turn(queue));
        Ok(())
    }

    /// Refuses a client that has waited for `queue_timeout`.
    pub(super) fn late(&mut self, client: usize, epoch: u32) {
        let c = &self.clients[client];
        if let (Some((edge, pool, place)), true) = (c.waits, c.epoch == epoch)
            && let Some(waiting) = self.waiting.get_mut(&(edge, pool))
        {
            waiting.queue.remove(c.address, place);
            waiting.tell();
            self.turn_away(client, (edge, pool));
        }
    }

    /// Removes a client that has left from the queue.
    pub(super) fn leave_queue(&mut self, client: usize) {
        let c = &mut self.clients[client];
        if let Some((edge, pool, place)) = c.waits.take()
            && let Some(waiting) = self.waiting.get_mut(&(edge, pool))
        {
            waiting.queue.remove(c.address, place);
            waiting.tell();
        }
    }

    fn turn_away(&mut self, client: usize, queue: (usize, PoolId)) {
        self.clients[client].waits = None;
        // Twice the time that the queue needs, as the edge's `Retry-After`.
        let spread = self.waiting.get(&queue);
        let spread = spread.map_or(Duration::ZERO, |w| 2 * w.pool.time_for(w.queue.len()));
        self.refuse(client, spread);
    }
}
