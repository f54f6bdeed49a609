//! Stops the data threads of an edge, as if they were busy, while its other threads run.
//!
//! In: a running edge, a child of this process. Out: stopped threads, until the guard is dropped. Uses ptrace(2),
//! which a parent may use on its child.

use std::path::Path;
use std::ptr::null_mut;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::edge::Edge;

/// Stopped threads; dropping it lets them go on.
pub struct Stopped {
    go_on: Option<SyncSender<()>>,
    tracer: Option<JoinHandle<()>>,
}

/// Stops the data threads of `edge`.
pub fn data_threads(edge: &Edge) -> Stopped {
    let tasks = format!("/proc/{}/task", edge.pid());
    let named = |path: &Path| {
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        name.starts_with("data-")
    };
    let entries = std::fs::read_dir(tasks).expect("the edge's threads");
    let threads = entries.map(|entry| entry.expect("a thread").path());
    let numbers = threads.filter(|path| named(path)).map(|path| {
        let name = path.file_name().expect("a number").to_string_lossy();
        name.parse::<libc::pid_t>().expect("a number")
    });
    let numbers: Vec<_> = numbers.collect();
    assert!(!numbers.is_empty(), "no data threads");
    let (go_on, until) = sync_channel::<()>(1);
    let (said, stopped) = sync_channel(1);
    // All calls for one thread must come from one thread.
    let tracer = std::thread::spawn(move || {
        numbers.iter().for_each(|number| stop(*number));
        said.send(()).expect("the test waits");
        let _ = until.recv();
        numbers
            .iter()
            .for_each(|number| trace(libc::PTRACE_DETACH, *number));
    });
    stopped.recv().expect("ptrace(2) of a child is allowed");
    Stopped {
        go_on: Some(go_on),
        tracer: Some(tracer),
    }
}

fn stop(thread: libc::pid_t) {
    trace(libc::PTRACE_SEIZE, thread);
    trace(libc::PTRACE_INTERRUPT, thread);
    // SAFETY: waits for a thread that this one traces; no status is asked for.
    let rc = unsafe { libc::waitpid(thread, null_mut(), libc::__WALL) };
    assert_eq!(rc, thread, "{}", std::io::Error::last_os_error());
}

fn trace(request: libc::c_uint, thread: libc::pid_t) {
    let none = null_mut::<libc::c_void>();
    // SAFETY: these requests take two null pointers.
    let rc = unsafe { libc::ptrace(request, thread, none, none) };
    assert_eq!(rc, 0, "ptrace: {}", std::io::Error::last_os_error());
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.go_on.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}
