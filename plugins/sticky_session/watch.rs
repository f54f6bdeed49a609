//! Watches one flow: learns the session ids in its node's answer, and keeps their entries live while the flow
//! lasts.
//!
//! In: copies of the answer's head and of the first bytes of its body, in any split. Out: entries of the
//! table. The flow releases its entries when it ends, so a session whose stream is open never expires by
//! absence.

use std::sync::Arc;
use std::time::Instant;

use super::json::Json;
use super::memory::{Memory, NAME};
use super::rule::Id;
use crate::api::{BODY_PREFIX, How, Mark, NodeId, PoolId, Watch};
use crate::memory::source::Source;
use crate::memory::table::{Key, Verdict};

/// Most sessions that one flow keeps live: that of its request, and those in its answer.
const MAX_HELD: usize = 4;

/// A flow of `pool` on its way to `node`.
pub struct Watching {
    memory: Arc<Memory>,
    pool: PoolId,
    node: NodeId,
    /// Both clocks when the flow began.
    began: (Instant, u64),
    /// The client, which takes the room of its sessions in the table.
    source: Source,
    held: Vec<Key>,
    /// Mark of the first session in the answer.
    mark: Option<Mark>,
    /// The received body from the start of its last, incomplete line.
    line: Vec<u8>,
    /// The JSON at the beginning of the body.
    json: Json,
    left: usize,
}

impl Watching {
    /// Starts without a session.
    pub fn new(
        memory: Arc<Memory>,
        (pool, node): (PoolId, NodeId),
        began: (Instant, u64),
        source: Source,
    ) -> Self {
        Watching {
            source,
            memory,
            pool,
            node,
            began,
            held: Vec::new(),
            mark: None,
            line: Vec::new(),
            json: Json::default(),
            left: BODY_PREFIX,
        }
    }

    /// Notes that the request belongs to this session. The flow keeps the session live if it is on this node.
    pub fn asked(&mut self, key: Key) {
        let known = self
            .memory
            .table
            .recall(&key, &self.memory.limits, self.began.0);
        if known.is_some_and(|known| known.node == self.node) {
            self.hold(key, self.began.0);
        }
    }

    /// Notes that the node has the session, whatever was remembered of it before.
    fn told(&mut self, id: Id, now: Instant) {
        let key = Key::of_hash(id, self.pool);
        self.hold(key, now);
        if self.mark.is_none() {
            let Memory { table, limits, .. } = &*self.memory;
            let known = table.recall(&key, limits, now);
            self.mark = known.map(|known| known.mark(limits));
        }
    }

    /// Learns that the session is on this node and keeps its entry live until the flow ends.
    fn hold(&mut self, key: Key, now: Instant) {
        if self.held.contains(&key) || self.held.len() == MAX_HELD {
            return;
        }
        let Memory { table, limits, .. } = &*self.memory;
        let how = match table.recall(&key, limits, now) {
            Some(known) if known.node == self.node => How::Recalled {
                by: NAME,
                age: known.age,
            },
            _ => How::Pinned,
        };
        let verdict = Verdict {
            node: self.node,
            how,
            own: true,
        };
        let since = now.saturating_duration_since(self.began.0).as_secs();
        let at = (now, self.began.1.saturating_add(since));
        table.learn((key, self.source), &verdict, limits, at, &|_| true);
        self.held.push(key);
    }

    /// Reads lines. Returns true once a line has an id.
    fn read_lines(&mut self, now: Instant) -> bool {
        while let Some(end) = self.line.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            if let Some(id) = self.memory.rule.of_line(&line, true) {
                self.told(id, now);
                return true;
            }
        }
        let id = self.memory.rule.of_line(&self.line, false);
        id.is_some_and(|id| {
            self.told(id, now);
            true
        })
    }

    /// Reads JSON. Returns true once an object has an id.
    fn read_json(&mut self, bytes: &[u8], now: Instant) -> bool {
        let memory = self.memory.clone();
        let names = memory.rule.json_names();
        if names.is_empty() {
            return false;
        }
        let mut id = self.json.read(bytes, &names);
        if self.left == 0 {
            id = id.or_else(|| self.json.cut());
        }
        id.is_some_and(|id| {
            self.told(id, now);
            true
        })
    }
}

impl Watch for Watching {
    fn head(&mut self, head: &[u8], now: Instant) {
        for id in self.memory.rule.of_head(head) {
            self.told(id, now);
        }
    }

    fn body(&mut self, bytes: &[u8], now: Instant) -> bool {
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        self.line.extend_from_slice(&bytes[..taken]);
        let over = self.read_lines(now)
            || self.read_json(&bytes[..taken], now)
            || self.left == 0
            || !self.memory.rule.reads_body();
        if over {
            (self.line, self.left) = (Vec::new(), 0);
        }
        !over
    }

    fn mark(&self) -> Option<Mark> {
        self.mark
    }

    fn forget(&mut self) {
        for key in &self.held {
            self.memory.table.forget_client(key, self.node);
        }
    }

    fn ended(&mut self, now: Instant) {
        for key in self.held.drain(..) {
            self.memory.table.ended(&key, &self.memory.limits, now);
        }
    }
}
