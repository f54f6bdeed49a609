//! Writes log lines on a thread of its own, so that no other thread waits for a disk, a pipe or a terminal.
//!
//! In: lines of all threads. Out: the same lines in their order, to a file, standard output or standard
//! error. A line that finds the queue full, or that cannot be written, is lost and counted.
//! Source: FAULTS D70; moby issue 31540 (a pipe that nobody reads stops the program).

mod out;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::out::Out;
use super::metrics;

/// Most lines that wait for a slow disk or pipe.
const MAX_LINES: usize = 8192;
/// Most bytes of these lines: a line may hold a request's whole path.
const MAX_BYTES: usize = 8 << 20;
/// Pause between two tries to put a mark into a full queue, while the process ends.
const RETRY: Duration = Duration::from_millis(5);

/// What a log has to say of itself. The writing thread calls it.
pub trait Owner: Send + 'static {
    /// Name of the log in metrics.
    const NAME: &'static str;
    /// Period of [`Owner::tick`]; `None`: never.
    const TICK: Option<Duration> = None;

    /// Reports that lines can be written again, after `lost` were not. Returns a line to write.
    fn lost(&self, lost: u64) -> Option<String>;

    /// Reports that a line could not be written. Called once until a line can be written.
    fn failed(&self, _: &io::Error) {}

    /// Does what is due each [`Owner::TICK`].
    fn tick(&self) {}
}

enum Message {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

/// The queue of one log.
pub struct LineQueue {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    writer: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// What both sides of the queue know.
#[derive(Default)]
struct Shared {
    /// Bytes in the queue.
    bytes: AtomicUsize,
    /// Lines lost since the last one that was written.
    lost: AtomicU64,
    /// Whether the file must be opened again. A message alone would be lost if the queue is full.
    reopen: AtomicBool,
    name: &'static str,
}

impl Shared {
    fn lose(&self, why: &str) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let lost = &metrics::get().lost_lines;
        lost.with_label_values(&[self.name, why]).inc();
    }
}

impl LineQueue {
    /// Makes the queue of a log that is written to `out`. Lines wait until [`LineQueue::start`].
    pub fn new<O: Owner>(owner: O, out: Out) -> Self {
        let (queue, messages) = sync_channel(MAX_LINES);
        let shared = Arc::new(Shared {
            name: O::NAME,
            ..Shared::default()
        });
        let writer = Writer {
            owner,
            out,
            shared: shared.clone(),
            is_failing: false,
        };
        LineQueue {
            queue,
            shared,
            writer: Mutex::new(Some(Box::new(move || writer.run(&messages)))),
        }
    }

    /// Starts the writing thread, once. Called after a daemon's fork, because a fork would end the thread.
    ///
    /// Errors: the system cannot start a thread.
    pub fn start(&self) -> io::Result<()> {
        let Some(writer) = self.writer.lock().take() else {
            return Ok(());
        };
        let thread = std::thread::Builder::new().name(format!("{}-log", self.shared.name));
        thread.spawn(writer).map(drop)
    }

    /// Whether the writing thread has been started.
    pub fn is_started(&self) -> bool {
        self.writer.lock().is_none()
    }

    /// Queues a line, with its line feed. Never blocks.
    pub fn push(&self, line: Vec<u8>) {
        let length = line.len();
        let waiting = self.shared.bytes.fetch_add(length, Ordering::Relaxed);
        let fits = waiting.saturating_add(length) <= MAX_BYTES;
        if !fits || self.queue.try_send(Message::Line(line)).is_err() {
            self.shared.bytes.fetch_sub(length, Ordering::Relaxed);
            self.shared.lose("queue_full");
        }
    }

    /// Makes the writing thread open its file again, after log rotation. Never blocks.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // If the queue is full, the thread looks at the flag before its next line.
        let _ = self.queue.try_send(Message::Reopen);
    }

    /// Waits until the lines queued so far are written, for `within` at most.
    pub fn flush(&self, within: Duration) {
        if !self.is_started() {
            return;
        }
        let until = Instant::now() + within;
        let (done, written) = sync_channel(1);
        while self.queue.try_send(Message::Flush(done.clone())).is_err() {
            if Instant::now() >= until {
                return;
            }
            std::thread::sleep(RETRY);
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// The writing thread's side.
struct Writer<O> {
    owner: O,
    out: Out,
    shared: Arc<Shared>,
    is_failing: bool,
}

impl<O: Owner> Writer<O> {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut ticked = Instant::now();
        loop {
            let message = match O::TICK {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(tick) => messages.recv_timeout(tick.saturating_sub(ticked.elapsed())),
            };
            if self.shared.reopen.swap(false, Ordering::Acquire) {
                self.out.reopen();
            }
            match message {
                Ok(Message::Line(line)) => self.line(&line),
                Ok(Message::Flush(done)) => drop(done.try_send(())),
                Ok(Message::Reopen) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if O::TICK.is_some_and(|tick| ticked.elapsed() >= tick) {
                ticked = Instant::now();
                self.owner.tick();
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        let written = self.out.write(line);
        self.shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        if let Err(e) = written {
            self.shared.lose("write_failed");
            if !std::mem::replace(&mut self.is_failing, true) {
                self.owner.failed(&e);
            }
            return;
        }
        self.is_failing = false;
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0
            && let Some(line) = self.owner.lost(lost)
        {
            // If it cannot be written, the metric still has the number.
            let _ = self.out.write(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
