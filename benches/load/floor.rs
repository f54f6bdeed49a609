//! Measures what the ends of connections cost the kernel alone: a loop of system calls, without a proxy.
//!
//! In: `--count` connections on loopback, `--wire ws` for a close frame before each FIN. Out: as `evict`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Instant;

use serde_json::Value;

use crate::ends::{Ends, figures};
use crate::wire::Wire;
use crate::{BoxError, Options};

/// Close frame 1012, as Pushgate sends it.
const RESTART: [u8; 4] = [0x88, 2, 0x03, 0xf4];

/// Runs the measurement. The loop runs on the last core of this process, and the watching thread on the
/// first.
pub fn run(options: &Options) -> Result<Value, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut clients, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..options.count {
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let mut one = listener.accept()?.0;
        // Once a byte has passed, both ends have the connection.
        client.write_all(b"!")?;
        one.read_exact(&mut [0])?;
        clients.push(client);
        ours.push(one);
    }
    let descriptors: Vec<_> = clients.iter().map(AsRawFd::as_raw_fd).collect();
    let ends = Ends::of(&descriptors);
    let (first, last) = cores()?;
    pin(last)?;
    let (begin, begun) = std::sync::mpsc::sync_channel(1);
    let watching = std::thread::spawn(move || {
        pin(first).ok()?;
        Some(ends.watch(begun.recv().ok()?))
    });
    let (start, before) = (Instant::now(), thread_cpu_ns());
    begin.send(start)?;
    for one in &ours {
        if options.wire == Wire::WebSocket {
            let (data, size) = (RESTART.as_ptr().cast(), RESTART.len());
            // SAFETY: the descriptor is open and `data` has `size` bytes.
            unsafe {
                libc::send(
                    one.as_raw_fd(),
                    data,
                    size,
                    libc::MSG_MORE | libc::MSG_NOSIGNAL,
                )
            };
        }
        one.shutdown(Shutdown::Write)?;
    }
    let cpu_ns = thread_cpu_ns() - before;
    let ends = watching
        .join()
        .map_err(|_| "the watching thread panicked")?;
    let ends = ends.ok_or("no core for the watching thread")?;
    Ok(figures(options.count, &ends, cpu_ns))
}

/// Returns the CPU time of this thread, in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns the first and the last core that this process may run on.
fn cores() -> Result<(usize, usize), BoxError> {
    // SAFETY: an all-zero cpu_set_t is a valid one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` has the given size.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    // SAFETY: the number is below the size of the set.
    let mut all = (0..libc::CPU_SETSIZE as usize).filter(|n| unsafe { libc::CPU_ISSET(*n, &set) });
    let first = all.next().ok_or("no core")?;
    Ok((first, all.next_back().unwrap_or(first)))
}

/// Binds this thread to `core`.
fn pin(core: usize) -> Result<(), BoxError> {
    // SAFETY: an all-zero cpu_set_t is a valid one, and `core` is of the set this process has.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` has the given size; 0 is the calling thread.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}
