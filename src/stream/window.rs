//! Sizes the receive window that a direction offers to the node: small, or for bulk the client's TCP window plus
//! the small one.
//!
//! In: sizes of reads, two sockets. Out: how much to read next. SO_RCVBUF is set on the way.
//! A large window's state is allocated and freed with it: silent flows and messages only hold a pointer.
//! Source: Lightstreamer clustering §1; docs/decisions/0017-bulk-by-the-clients-window.md.

use std::sync::LazyLock;
use std::time::Instant;

use super::kernel;
use super::side::Side;
use super::window_budget::{BULK_READS, BULK_WITHIN_MS, CAP, Facts, WindowBudget};

/// The receive window that one direction offers to its source.
#[derive(Default)]
pub(super) struct Window {
    budget: Option<Box<WindowBudget>>,
    /// When the first counted read was made.
    since_ms: u32,
    /// Bytes of the counted reads, in units of [`UNIT`].
    units: u16,
    reads: u8,
    look: Look,
}

/// Whether the window may grow, and whether to look for a large buffer that an earlier answer left.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Look {
    /// The window does not grow.
    #[default]
    Never,
    /// The look comes with the second read: a short answer must not pay for it.
    Later,
    Next,
    Done,
}

/// Large enough that the bytes of all counted reads fit into 16 bits.
const UNIT: usize = 64;

impl Window {
    /// Creates a window that may grow, if `bulk` is set and `most` unsent bytes leave room for growth.
    pub(super) fn new(bulk: bool, most: usize) -> Self {
        Window {
            look: match bulk && buffer(most) < CAP / 2 {
                true => Look::Later,
                false => Look::Never,
            },
            ..Window::default()
        }
    }

    /// Most bytes that one read may return, and that our kernel may have unsent for the client; `most` without
    /// bulk.
    pub(super) fn most(&self, most: usize) -> usize {
        self.budget.as_ref().map_or(most, |p| p.most().max(most))
    }

    /// Returns how many bytes to read now, at most `room`, and sets the receive buffer first if it must change. Our
    /// kernel must have taken every byte read before.
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

    /// Counts a read of `n` bytes.
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

    /// Whether a read of `n` bytes completes [`BULK_READS`] reads, half full on average, within
    /// [`BULK_WITHIN_MS`].
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

/// Returns the receive buffer towards a node for a flow without bulk that may have `most` unsent bytes, as
/// the kernel counts. docs/decisions/0013-split-of-max-hidden.md
fn buffer(most: usize) -> usize {
    2 * most
}

/// Returns the milliseconds of a clock of this process; it wraps.
fn now_ms() -> u32 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGUN.elapsed().as_millis() as u32
}

#[cfg(test)]
mod tests;
