//! Signals one task. It is given once and polled at each wake-up of the task.
//!
//! A poll is one load, and the waker is stored once for each task; `Notify` would lock its list of waiters at
//! each poll.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::sync::{AtomicBool, AtomicWaker, Ordering};

/// A signal, given or not. Only one task at a time may wait for it.
#[derive(Default)]
pub struct Signal {
    given: AtomicBool,
    waits: AtomicWaker,
}

impl Signal {
    /// Gives the signal to the task that waits now or polls later.
    pub fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.waits.wake();
    }

    /// Takes the signal back. No task may be waiting.
    pub fn take_back(&self) {
        self.given.store(false, Ordering::Release);
    }

    /// Drops the stored waker, which keeps the memory of its task.
    pub fn leave(&self) {
        drop(self.waits.take());
    }

    /// Waits until the signal is given.
    pub fn wait(&self) -> Wait<'_> {
        Wait {
            signal: self,
            told: None,
        }
    }

    /// As [`Signal::wait`], for a hand-written future. `told` is the waker stored here, at first `None`. The
    /// future must call [`Signal::leave`] when it is dropped.
    pub fn poll(&self, cx: &mut Context<'_>, told: &mut Option<Waker>) -> Poll<()> {
        if !told.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            self.waits.register(cx.waker());
            *told = Some(cx.waker().clone());
        }
        // Loaded after the waker is stored, so that a signal between the two is not missed.
        match self.given.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.signal.leave();
    }
}

/// Resolves when the signal is given.
pub struct Wait<'a> {
    signal: &'a Signal,
    told: Option<Waker>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.signal.poll(cx, &mut this.told)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A flow moves from the connection's task to its own while it waits. Fails if the waker is stored only
    /// once.
    #[test]
    fn the_task_that_asked_last_is_woken() {
        let [first, second] = [(); 2].map(|()| Arc::new(Woken::default()));
        let (signal, mut told) = (Signal::default(), None);
        for woken in [&first, &first, &second] {
            let waker = Waker::from(woken.clone());
            let asked = signal.poll(&mut Context::from_waker(&waker), &mut told);
            assert!(asked.is_pending());
        }
        signal.give();
        let count = |w: &Woken| w.0.load(Ordering::SeqCst);
        assert_eq!((count(&first), count(&second)), (0, 1));
    }

    #[test]
    fn it_stays_given_until_it_is_taken_back() {
        let signal = Signal::default();
        let mut cx = Context::from_waker(Waker::noop());
        signal.give();
        for _ in 0..2 {
            assert!(Pin::new(&mut signal.wait()).poll(&mut cx).is_ready());
        }
        signal.take_back();
        assert!(Pin::new(&mut signal.wait()).poll(&mut cx).is_pending());
    }
}
