//! Starts the threads that serve clients: data threads carry bytes, and as many handshake
//! threads run at lower priority.
//!
//! In: how many. Out: the threads, to accept and serve on. Source: FAULTS D33; issue "TLS offload": a storm
//! of full handshakes must not delay bytes of live streams.

use std::io;

use rustix::process::setpriority_process;
use tokio::runtime::Builder;

use crate::observe::metrics;
use crate::proxy::threads::{Runtimes, Thread};
use crate::stream::{dead_peer, pulse};
use crate::upstream::evict;

/// Niceness of the handshake threads. The kernel then prefers data threads. On a core that is busy with
/// bytes, handshakes still get about a tenth, so that new clients get in.
const HANDSHAKE_NICE: i32 = 10;

/// Tasks of a handshake thread between two looks at its sockets. With tokio's 61 a client's hello was not seen
/// while 61 handshakes of another client, 0.1 to 1 ms each, were ready.
const HANDSHAKES_BETWEEN_LOOKS: u32 = 2;

/// Tasks of a data thread between two looks at its sockets. With tokio's 61 a message waited for up to 3 ms while
/// 61 streams of another client, some 50 µs each, began.
const TASKS_BETWEEN_LOOKS: u32 = 16;

/// Starts `count` threads of each kind.
///
/// Errors: the system cannot start a thread or its runtime.
pub fn start(count: usize) -> io::Result<Runtimes> {
    let all = |kind: &str, nice| {
        let one = |n| thread(format!("{kind}-{n}"), nice);
        (0..count).map(one).collect::<io::Result<Vec<_>>>()
    };
    Ok(Runtimes {
        data: all("data", 0)?,
        handshakes: all("handshake", HANDSHAKE_NICE)?,
    })
}

/// Starts one thread with a runtime of its own. A connection stays on it, and nothing it does
/// wakes another core.
fn thread(name: String, nice: i32) -> io::Result<Thread> {
    let tasks = match nice {
        0 => TASKS_BETWEEN_LOOKS,
        _ => HANDSHAKES_BETWEEN_LOOKS,
    };
    let mut builder = Builder::new_current_thread();
    let runtime = builder.event_interval(tasks).enable_all().build()?;
    let connections = metrics::get()
        .thread_connections
        .with_label_values(&[&name]);
    let thread = Thread::new(runtime.handle().clone(), connections);
    std::thread::Builder::new().name(name).spawn(move || {
        if nice != 0 {
            // On Linux `None` is the calling thread. Raising the niceness needs no privilege; if it
            // fails, all threads have the same priority.
            let _ = setpriority_process(None, nice);
        }
        let pulse = async {
            // No flow waits for a handshake thread.
            if nice == 0 {
                pulse::watch().await;
            }
        };
        // The first two run as long as the thread.
        runtime.block_on(async { tokio::join!(evict::reap(), dead_peer::watch(), pulse).0 })
    })?;
    Ok(thread)
}
