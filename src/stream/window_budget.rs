//! Decides how much a node may be promised while a flow carries bulk: what the client's kernel has promised
//! to take, and the small window besides.
//!
//! In: what the client's kernel acknowledged, promises and has not sent; what was read of the node. Out: the
//! receive buffer towards the node, and how much may be read before the next question. TCP does not take a
//! promise back, so a client that stops still takes what its node was promised.
//! Source: RFC 9293 §3.8.6 (a shrunken window is discouraged); docs/decisions/0017-bulk-by-the-clients-window.md.

/// Most bytes that a node may be promised and the client's kernel not have sent, together. Half of it is
/// the largest receive buffer. The window itself is 64 KiB at most (no scale: see `socket::connect`), but with
/// half of this the relay waits for its client more often: TLS cost 1.4 times HAProxy's CPU, not 1.2.
pub(super) const CAP: usize = 512 * 1024;
/// Reads that show bulk where they are half full on average, and the longest time they may take: together at
/// least 1.3 MB/s. Below that a small window costs little, and messages of some KiB stay what they are.
pub(super) const BULK_READS: u8 = 16;
pub(super) const BULK_WITHIN_MS: u32 = 50;
/// Small reads in a row after which bulk is over.
const SMALL_READS: u8 = 4;
/// Share of the client's promise that framing may take: 22 to 29 bytes of TLS for a record of 2 KiB or more,
/// 12 of a chunk.
const FRAMING_SHARE: u64 = 64;

/// What the kernel knows before a read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Bytes of the client's connection that its kernel has acknowledged.
    pub acknowledged: u64,
    /// Bytes it may be sent beyond these.
    pub window: u64,
    /// Bytes our kernel has for it, sent or not. Asked first: an acknowledgement in between makes the
    /// client's promise look smaller, never larger.
    pub unacknowledged: u64,
    /// Those of them that are not sent.
    pub unsent: u64,
    /// Bytes of the node that wait to be read.
    pub unread: usize,
    /// TLS or chunks are put around what is read.
    pub framed: bool,
}

/// What is to be done before a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Receive buffer towards the node to be set, in bytes as the kernel counts; `None`: as it is.
    pub buffer: Option<usize>,
    /// Most bytes to be read before the next question.
    pub read: usize,
}

/// What is promised to a node whose flow carries bulk, or has until a moment ago.
#[derive(Debug)]
pub(super) struct WindowBudget {
    /// Bytes read since it began.
    read: u64,
    /// The node may have been promised so many of them; never back.
    edge: u64,
    /// The client's kernel has promised to take so many of its connection; never back.
    taken: u64,
    /// Receive buffer towards the node now, in bytes as the kernel counts.
    level: usize,
    /// The same of a flow that carries none.
    small: usize,
    small_reads: u8,
    /// Bulk is over: no more is promised, and what was is waited for.
    over: bool,
}

impl WindowBudget {
    /// Of a flow whose receive buffer is `level` bytes as the kernel counts, and `small` without bulk.
    pub(super) fn new(level: usize, small: usize) -> Self {
        WindowBudget {
            read: 0,
            edge: level as u64,
            taken: 0,
            level,
            small,
            small_reads: 0,
            over: false,
        }
    }

    /// Of a connection that an earlier answer left with a large receive buffer.
    pub(super) fn left_over(level: usize, small: usize) -> Self {
        WindowBudget {
            over: true,
            ..WindowBudget::new(level, small)
        }
    }

    /// Most bytes that may be read and not be sent by the client's kernel.
    pub(super) fn most(&self) -> usize {
        self.level / 2
    }

    /// Whether the flow is as one that never carried bulk.
    pub(super) fn is_kept(&self) -> bool {
        self.over && self.level <= self.small
    }

    /// Bulk goes on after all.
    pub(super) fn renew(&mut self) {
        self.over = false;
        self.small_reads = 0;
    }

    /// Whether [`Facts`] of the client are needed for [`WindowBudget::before_read`].
    pub(super) fn asks_client(&self) -> bool {
        !self.over
    }

    /// Decides before a read of at most `room` bytes, when all that was read before is with the client's kernel.
    pub(super) fn before_read(&mut self, facts: Facts, room: usize) -> Verdict {
        let target = if self.over {
            self.small
        } else {
            self.bound(facts, room)
        };
        if target < self.level {
            return self.lower(target, facts.unread.min(room), room);
        }
        // By doubling only: the client's kernel opens its own window step by step.
        let buffer = (target > self.level).then(|| target.min(self.level * 2));
        self.set(buffer);
        Verdict { buffer, read: room }
    }

    /// Largest receive buffer, of those that double from the small one, with which the node is promised no
    /// more than the client's kernel promised, and the small one besides.
    fn bound(&mut self, facts: Facts, room: usize) -> usize {
        self.taken = self.taken.max(facts.acknowledged + facts.window);
        let ahead = self
            .taken
            .saturating_sub(facts.acknowledged + facts.unacknowledged);
        let framing = if facts.framed {
            ahead / FRAMING_SHARE
        } else {
            0
        };
        let by_client = (ahead - framing).saturating_add(self.small as u64);
        let by_cap = (CAP as u64).saturating_sub(facts.unsent);
        let bound = by_client.min(by_cap).saturating_sub(room as u64);
        let mut level = self.small;
        while level as u64 * 2 <= bound {
            level *= 2;
        }
        level
    }

    /// Lowers the buffer as far as the node's unread promise allows: what it was promised and finds no room
    /// is dropped by our kernel, and comes again 0.1 to 0.3 s later.
    fn lower(&mut self, target: usize, read: usize, room: usize) -> Verdict {
        // Nothing to read: the promise is as it was.
        let promised = self.edge.saturating_sub(self.read + read as u64);
        let level = target.max(usize::try_from(promised).unwrap_or(usize::MAX));
        if read == 0 || level >= self.level {
            return Verdict {
                buffer: None,
                read: room,
            };
        }
        self.set(Some(level));
        // No more: each byte read beyond would promise another one.
        Verdict {
            buffer: Some(level),
            read,
        }
    }

    fn set(&mut self, buffer: Option<usize>) {
        self.level = buffer.unwrap_or(self.level);
        self.edge = self.edge.max(self.read + self.level as u64);
    }

    /// Notes a read of `n` bytes.
    pub(super) fn saw(&mut self, n: usize) {
        self.read += n as u64;
        self.set(None);
        self.small_reads = match n < self.small / 4 {
            true => self.small_reads + 1,
            false => 0,
        };
        if self.small_reads >= SMALL_READS {
            self.over = true;
            self.small_reads = 0;
        }
    }
}

#[cfg(test)]
mod tests;
