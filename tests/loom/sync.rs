//! loom's atomics, and an `AtomicWaker` with a lock that loom can see.
//!
//! The lock orders `register` and `wake` as the `AtomicWaker` of futures-util does: either `wake` finds the waker,
//! or `register` sees all that happened before `wake`.

use std::task::Waker;

use loom::sync::Mutex;
pub use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering};

#[derive(Default)]
pub struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub fn register(&self, waker: &Waker) {
        let before = self.0.lock().unwrap().replace(waker.clone());
        drop(before);
    }

    pub fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    pub fn take(&self) -> Option<Waker> {
        self.0.lock().unwrap().take()
    }
}
