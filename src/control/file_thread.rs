//! Runs work that touches files, or computes for long, on threads of its own, beside everything that serves.
//!
//! In: the work. Out: its result. A file system that hangs holds up this work only; the process can end
//! meanwhile, which it could not with the threads for blocking calls of a runtime.
//! Source: issue "In bad weather", 3 (1,500 certificates read by a reload held new clients for 0.9 s).

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::setpriority_process;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Niceness of these threads, as of those that shake hands: bytes of live streams go first.
const NICE: i32 = 10;
/// Most threads at once. More than a few are there only when a file system hangs.
const MAX_THREADS: usize = 32;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// One running thread, counted in the given place.
struct Running(&'static AtomicUsize);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread of its own, within the current runtime. A caller that gives up leaves it running.
///
/// Errors: the system has no thread left, too many of these threads wait for files, or the work panicked.
pub async fn on_file_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    run(&THREADS, work).await
}

async fn run<T: Send + 'static>(
    threads: &'static AtomicUsize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let before = threads.fetch_add(1, Ordering::Relaxed);
    let running = Running(threads);
    if before >= MAX_THREADS {
        return Err(format!(
            "{MAX_THREADS} threads wait for files; does a file system hang?"
        ));
    }
    let runtime = Handle::current();
    let (done, result) = oneshot::channel();
    let run = move || {
        let _running = running;
        // On Linux `None` is the calling thread. If it fails, all threads have the same priority.
        let _ = setpriority_process(None, NICE);
        let _entered = runtime.enter();
        // The caller may have given up.
        let _ = done.send(work());
    };
    let thread = std::thread::Builder::new().name("files".into());
    thread.spawn(run).map_err(|e| format!("threads: {e}"))?;
    let panicked = |_| "the work panicked, a bug in pushgate; see the log".to_owned();
    result.await.map_err(panicked)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, sync_channel};

    use parking_lot::Mutex;

    use super::*;

    /// Begins work that hangs until the other end of `until` is dropped, and does not wait for it.
    async fn hang(threads: &'static AtomicUsize, until: &Arc<Mutex<Receiver<()>>>) {
        let until = until.clone();
        let work = run(threads, move || until.lock().recv().is_ok());
        tokio::select! {
            biased;
            _ = work => panic!("it hangs"),
            () = std::future::ready(()) => {}
        }
    }

    /// Aim: work that hangs neither holds up other work nor the end of the runtime, and the number of threads is
    /// bounded. Fails with the runtime's own threads for blocking calls, or without the bound.
    #[test]
    fn what_hangs_holds_up_nothing() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let (release, until) = sync_channel(1);
        let until = Arc::new(Mutex::new(until));
        runtime.block_on(async {
            for _ in 0..MAX_THREADS - 1 {
                hang(&COUNT, &until).await;
            }
            assert_eq!(run(&COUNT, || 7).await, Ok(7));
            while COUNT.load(Ordering::Relaxed) >= MAX_THREADS {
                tokio::task::yield_now().await;
            }
            hang(&COUNT, &until).await;
            let more = run(&COUNT, || 8).await;
            assert!(more.is_err_and(|e| e.contains("file system")));
        });
        drop(runtime);
        drop(release);
    }

    /// Aim: a panic of the work is an error for the caller. Fails if it ends the caller or hangs it.
    #[tokio::test]
    async fn a_panic_is_an_error() {
        let panics = on_file_thread(|| panic!("planned by a test")).await;
        let why = panics.map(|()| String::new()).unwrap_or_else(|e| e);
        assert!(why.contains("panicked"), "{why}");
    }
}
