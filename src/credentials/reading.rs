//! Shows which file a thread reads, so that another thread sees where it hangs.
//!
//! In: the paths of files, as they are read. Out: the path that is being read at this moment.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

thread_local! {
    static OF_THIS_THREAD: RefCell<Option<Reading>> = const { RefCell::new(None) };
}

/// The file that one thread reads at this moment; other threads hold clones.
#[derive(Clone, Default)]
pub struct Reading(Arc<Mutex<Option<PathBuf>>>);

impl Reading {
    /// Runs `work` on this thread. [`Reading::at`] names each file of credentials while `work` reads it.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = OF_THIS_THREAD.replace(Some(self.clone()));
        let result = work();
        OF_THIS_THREAD.set(before);
        result
    }

    /// Returns the file that is being read; `None` between two files.
    pub fn at(&self) -> Option<PathBuf> {
        self.0.lock().clone()
    }

    /// Has [`Reading::at`] name `path` until the result is dropped.
    pub fn note(&self, path: &Path) -> Noted {
        *self.0.lock() = Some(path.to_owned());
        Noted(self.clone())
    }
}

/// The time in which a file is read.
pub struct Noted(Reading);

impl Drop for Noted {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

/// Shows that this thread reads `path`, until the result is dropped. Without [`Reading::during`] nobody looks.
pub(super) fn note(path: &Path) -> Option<Noted> {
    OF_THIS_THREAD.with_borrow(|reading| reading.as_ref().map(|r| r.note(path)))
}
