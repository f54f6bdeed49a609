//! The window a direction keeps open to the node: small, or for bulk as large as the client's kernel takes.
//!
//! In: sizes of reads, two sockets. Out: how much to read next; SO_RCVBUF is set on the way. The state of a
//! large window is allocated with it and freed with it: silent flows and messages have a pointer.
//! Source: Lightstreamer clustering §1; docs/decisions/0017-bulk-by-the-clients-window.md.

use std::sync::LazyLock;
use std::time::Instant;

use super::kernel;
use super::side::Side;
use super::window_budget::{BULK_READS, BULK_WITHIN_MS, CAP, Facts, WindowBudget};

/// The window of one direction's source.
#[derive(Default)]
pub(super) struct Window {
    budget: Option<Box<WindowBudget>>,
    /// When the first of the reads that are counted was.
    since_ms: u32,
    /// Their bytes, in units of [`UNIT`].
    units: u16,
    reads: u8,
    look: Look,
}

/// Whether the window may grow, and may have been left large by an earlier answer on the connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Look {
    /// It does not grow.
    #[default]
    Never,
    /// Not at the first read: a short answer would pay for the look.
    Later,
    Next,
    Done,
}

/// So coarse that the reads which are counted together fit into 16 bits.
const UNIT: usize = 64;

impl Window {
    /// One that may grow where `bulk` is wished and `most` unsent bytes leave room for it.
    pub(super) fn new(bulk: bool, most: usize) -> Self {
        Window {
            look: match bulk && buffer(most) < CAP / 2 {
                true => Look::Later,
                false => Look::Never,
            },
            ..Window::default()
        }
    }

    /// Most bytes that may be read and not be sent by the client's kernel; `most` without bulk.
    pub(super) fn most(&self, most: usize) -> usize {
        self.budget.as_ref().map_or(most, |p| p.most().max(most))
    }

    /// Most bytes to be read now, of `room`, when all that was read before is with the client's kernel.
    pub(super) fn before_read(
        &mut self,
        (source, sink): (&Side, &Side),
        most: usize,
        room: usize,
        framed: bool,
    ) -> usize {
        self.look_once(source, most);
        let Some(budget) = &mut self.budget else {
            return room;
        };
        let Some(socket) = source.tcp() else {
            return room;
        };
        let unread = kernel::unread(socket.fd());
        let mut facts = Facts {
            unread: usize::try_from(unread).unwrap_or(usize::MAX),
            framed,
            ..Facts::default()
        };
        if let (true, Some(client)) = (budget.asks_client(), sink.tcp()) {
            let fd = client.fd();
            facts.unacknowledged = kernel::unacknowledged(fd);
            let info = kernel::info(fd).unwrap_or_default();
            (facts.acknowledged, facts.window) = (info.acknowledged, info.window);
            facts.unsent = info.unsent;
        }
        let verdict = budget.before_read(facts, room);
        if let Some(bytes) = verdict.buffer {
            kernel::set_receive_buffer(socket.stream(), bytes);
        }
        if budget.is_kept() {
            self.budget = None;
        }
        verdict.read
    }

    fn look_once(&mut self, source: &Side, most: usize) {
        match self.look {
            Look::Never | Look::Done => {}
            Look::Later => self.look = Look::Next,
            Look::Next => {
                self.look = Look::Done;
                let Some(socket) = source.tcp() else { return };
                let (level, small) = (kernel::receive_buffer(socket.stream()), buffer(most));
                if level > small && self.budget.is_none() {
                    self.budget = Some(Box::new(WindowBudget::left_over(level, small)));
                }
            }
        }
    }

    /// Notes a read of `n` bytes.
    pub(super) fn saw(&mut self, n: usize, most: usize) {
        if self.look == Look::Never {
            return;
        }
        if let Some(budget) = &mut self.budget {
            budget.saw(n);
            if budget.asks_client() {
                return;
            }
        }
        if self.is_bulk(n, most) {
            let small = buffer(most);
            let budget = self
                .budget
                .get_or_insert_with(|| Box::new(WindowBudget::new(small, small)));
            budget.renew();
        }
    }

    /// Whether a read of `n` bytes was the last of so many, half full on average, in so short a time.
    fn is_bulk(&mut self, n: usize, most: usize) -> bool {
        if self.reads == 0 {
            (self.since_ms, self.units) = (now_ms(), 0);
        }
        self.reads += 1;
        self.units += (n / UNIT) as u16;
        if self.reads < BULK_READS {
            return false;
        }
        self.reads = 0;
        let is_full = usize::from(self.units) * UNIT >= most / 2 * usize::from(BULK_READS);
        is_full && now_ms().wrapping_sub(self.since_ms) <= BULK_WITHIN_MS
    }
}

/// Receive buffer towards a node, as the kernel counts, of a flow with so many unsent bytes and no bulk.
/// docs/decisions/0013-split-of-max-hidden.md
fn buffer(most: usize) -> usize {
    2 * most
}

/// Milliseconds of a clock of this process; it wraps.
fn now_ms() -> u32 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed().as_millis() as u32
}

#[cfg(test)]
mod tests;
