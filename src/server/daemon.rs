//! Leaves the terminal (`-d`): a new session in `/`, with nothing to read.
//!
//! In: a process of one thread, whose sockets are bound. Out: the same in the background; the first process has
//! ended with code 0. Standard output and standard error stay, because logs go there.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Rights that nobody but the owner has on new files: all of others, and writing of the group.
const UMASK: libc::mode_t = 0o027;

/// Goes on in the background.
///
/// Errors: those of the system; the process is as it was, or its child ends.
pub fn leave_terminal() -> io::Result<()> {
    fork()?;
    rustix::process::setsid()?;
    // The second child leads no session, so no terminal can become its own.
    fork()?;
    rustix::process::chdir("/")?;
    let nothing = File::open("/dev/null")?;
    // SAFETY: both calls take numbers; the descriptor is open.
    let done = unsafe {
        libc::umask(UMASK);
        libc::dup2(nothing.as_raw_fd(), libc::STDIN_FILENO)
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Goes on as a child; the parent ends.
fn fork() -> io::Result<()> {
    // SAFETY: this process has one thread, so the child's memory is whole.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        // SAFETY: it ends this process at once. What it would do at its end belongs to the child.
        _ => unsafe { libc::_exit(0) },
    }
}
