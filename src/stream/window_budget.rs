//! Decides how large a receive window the node gets while its flow carries bulk: the TCP window that the client
//! offers, plus the small one.
//!
//! In: what the client acknowledged and offers; what our kernel has unsent for the client; what was read from the
//! node. Out: the receive buffer towards the node, and how much to read before the next decision.
//! A window is a promise that TCP does not take back. So the node is promised no more than the client's kernel
//! still takes if the client stops reading, plus the small window.
//! Source: RFC 9293 §3.8.6 (a shrunken window is discouraged);
//! docs/decisions/0017-bulk-by-the-clients-window.md.

/// Most bytes promised to a node, plus bytes unsent in our kernel for its client. The largest receive buffer is
/// half of it. The window is 64 KiB at most (no scale: see `socket::connect`). With half this cap the relay waits
/// for its client more often: TLS cost 1.4 times HAProxy's CPU, not 1.2.
pub(super) const CAP: usize = 512 * 1024;
/// Reads that show bulk if they are half full on average, and the longest time they may take, in ms: together
/// at least 1.3 MB/s. Below that a small window costs little, and messages of a few KiB do not count as bulk.
pub(super) const BULK_READS: u8 = 16;
pub(super) const BULK_WITHIN_MS: u32 = 50;
/// Small reads in a row that end bulk.
const SMALL_READS: u8 = 4;
/// Divisor of the client's window that leaves room for framing: 22 to 29 bytes of TLS for a record of 2 KiB
/// or more, 12 for a chunk.
const FRAMING_SHARE: u64 = 64;

/// What the kernel reports before a read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Bytes of the client's connection that the client has acknowledged.
    pub acknowledged: u64,
    /// The client's window: bytes that may follow the acknowledged ones.
    pub window: u64,
    /// Bytes for the client in our kernel, sent or not. Read first: an acknowledgement in between then makes
    /// the client's window look smaller, never larger.
    pub unacknowledged: u64,
    /// How many of them are unsent.
    pub unsent: u64,
    /// Bytes of the node that wait to be read.
    pub unread: usize,
    /// Whether TLS or chunks are put around the bytes.
    pub framed: bool,
}

/// What to do before a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// New receive buffer towards the node, in bytes as the kernel counts; `None`: unchanged.
    pub buffer: Option<usize>,
    /// Most bytes to read before the next decision.
    pub read: usize,
}

/// The window of a node whose flow carries bulk, or did until a moment ago.
#[derive(Debug)]
pub(super) struct WindowBudget {
    /// Bytes read so far.
    read: u64,
    /// The byte up to which the node may have been allowed to send; it only grows.
    edge: u64,
    /// The byte up to which the client has offered to take; it only grows.
    taken: u64,
    /// Current receive buffer towards the node, in bytes as the kernel counts.
    level: usize,
    /// Receive buffer without bulk, in the same unit.
    small: usize,
    small_reads: u8,
    /// Bulk has ended: the node is promised nothing new, and the relay reads what the node was promised before.
    over: bool,
}

impl WindowBudget {
    /// Begins bulk with a receive buffer of `level` bytes as the kernel counts; `small` without bulk.
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

    /// Takes over a connection whose large receive buffer was left by an earlier answer.
    pub(super) fn left_over(level: usize, small: usize) -> Self {
        WindowBudget {
            over: true,
            ..WindowBudget::new(level, small)
        }
    }

    /// Most bytes that one read may return, and that our kernel may have unsent for the client.
    pub(super) fn most(&self) -> usize {
        self.level / 2
    }

    /// Whether the buffer is small again, so that this state can be dropped.
    pub(super) fn is_kept(&self) -> bool {
        self.over && self.level <= self.small
    }

    /// Resumes bulk.
    pub(super) fn renew(&mut self) {
        self.over = false;
        self.small_reads = 0;
    }

    /// Whether [`WindowBudget::before_read`] needs [`Facts`] of the client.
    pub(super) fn asks_client(&self) -> bool {
        !self.over
    }

    /// Decides the buffer and the size of the next read, of at most `room` bytes. Our kernel must have every byte
    /// read before.
    pub(super) fn before_read(&mut self, facts: Facts, room: usize) -> Verdict {
        let target = if self.over {
            self.small
        } else {
            self.bound(facts, room)
        };
        if target < self.level {
            return self.lower(target, facts.unread.min(room), room);
        }
        // Grows by doubling only, as the client's kernel opens its own window step by step.
        let buffer = (target > self.level).then(|| target.min(self.level * 2));
        self.set(buffer);
        Verdict { buffer, read: room }
    }

    /// Largest receive buffer, doubled from the small one, that promises the node no more than the client's
    /// window plus the small one.
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

    /// Lowers the buffer no further than what the node was promised and has not sent. Our kernel would drop
    /// bytes that find no room, and the node would repeat them 0.1 to 0.3 s later.
    fn lower(&mut self, target: usize, read: usize, room: usize) -> Verdict {
        // No byte to read: the node's promise is unchanged.
        let promised = self.edge.saturating_sub(self.read + read as u64);
        let level = target.max(usize::try_from(promised).unwrap_or(usize::MAX));
        if read == 0 || level >= self.level {
            return Verdict {
                buffer: None,
                read: room,
            };
        }
        self.set(Some(level));
        // Not more than `read`: each byte read beyond it would promise the node another one.
        Verdict {
            buffer: Some(level),
            read,
        }
    }

    fn set(&mut self, buffer: Option<usize>) {
        self.level = buffer.unwrap_or(self.level);
        self.edge = self.edge.max(self.read + self.level as u64);
    }

    /// Counts a read of `n` bytes.
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
