//! Shows which file a thread reads, so that another thread sees where it hangs.
//!
//! In: the paths of files, as they are looked at and read. Out: the file of this moment, and whether the thread gets on.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

thread_local! {
    static OF_THIS_THREAD: RefCell<Option<Reading>> = const { RefCell::new(None) };
}

/// What one thread reads; other threads hold clones.
#[derive(Clone, Default)]
pub struct Reading(Arc<Mutex<At>>);

#[derive(Default)]
struct At {
    file: Option<PathBuf>,
    /// Files begun and pieces read so far.
    steps: u64,
}

impl Reading {
    /// Runs `work` on this thread, and shows each file of credentials while `work` looks at it or reads it.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = OF_THIS_THREAD.replace(Some(self.clone()));
        let result = work();
        OF_THIS_THREAD.set(before);
        result
    }

    /// Returns the file that is being read; `None` between two files.
    pub fn file(&self) -> Option<PathBuf> {
        self.0.lock().file.clone()
    }

    /// Returns how many steps the thread has made. While the number stays, the thread waits for its file.
    pub fn steps(&self) -> u64 {
        self.0.lock().steps
    }
}

/// The time in which a file is read.
pub(super) struct Noted(Option<Reading>);

impl Noted {
    /// Notes that a piece of the file has been read.
    pub fn step(&self) {
        if let Some(reading) = &self.0 {
            reading.0.lock().steps += 1;
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(reading) = &self.0 {
            reading.0.lock().file = None;
        }
    }
}

/// Shows that this thread is at `path`, until the result is dropped. Without [`Reading::during`] nobody looks.
pub(super) fn note(path: &Path) -> Noted {
    let reading = OF_THIS_THREAD.with_borrow(Clone::clone);
    if let Some(reading) = &reading {
        let mut at = reading.0.lock();
        at.file = Some(path.to_owned());
        at.steps += 1;
    }
    Noted(reading)
}
