//! Wakes tasks of a thread that will end, a few at a time, so that other flows of the thread have their turn between.
//!
//! In: wakers. Out: they are woken in order, [`ENDS`] of the whole thread before it looks at its sockets again.

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
