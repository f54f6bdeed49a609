//! Wakes tasks of a thread that will end, a few at a time, so that other flows of the thread have their turn between.
//!
//! In: wakers. Out: they are woken in order, four of the whole thread before it looks at its sockets again.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::Mutex;
use tokio::task::yield_now;

/// Tasks that end before others have their turn. To end one costs some 80 µs, so a hundred at once held up the
/// messages of others for 8 ms.
const ENDS: usize = 4;

thread_local! {
    /// Held by whoever wakes many. Without it each of ten connections that end would have its four.
    static ENDING: Arc<Mutex<()>> = Arc::default();
}

/// Wakes `tasks`, all of this thread.
pub async fn wake_in_turns(tasks: Vec<Waker>) {
    if tasks.len() <= 1 {
        return tasks.into_iter().for_each(Waker::wake);
    }
    let ending = ENDING.with(Arc::clone);
    let _held = ending.lock().await;
    for (n, task) in tasks.into_iter().enumerate() {
        if n % ENDS == ENDS - 1 {
            yield_now().await;
        }
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Aim: between two turns of another task a few tasks are woken, whoever wakes them. Fails if a connection wakes
    /// all its streams at once, or if two that end have their turns side by side.
    #[tokio::test]
    async fn few_end_in_each_turn() {
        let woken = Arc::new(Count::default());
        for _ in 0..2 {
            tokio::spawn(wake_in_turns(vec![woken.clone().into(); 20]));
        }
        let (mut before, mut most) = (0, 0);
        while before < 40 {
            yield_now().await;
            let now = woken.0.load(Relaxed);
            most = most.max(now - before);
            before = now;
        }
        // One ends and the next begins in the same turn.
        assert!((ENDS..2 * ENDS).contains(&most), "{most} in one turn");
    }
}
