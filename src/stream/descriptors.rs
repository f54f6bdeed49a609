//! Keeps the last descriptors from flows: for checks, the admin endpoint, logs, a reload.
//!
//! In: the limit, descriptors that flows were given. Out: whether they may have them. The kernel gives the
//! lowest number that is free, so that a number says how many are taken; no count is kept.
//! Source: FAULTS D54 ("accept backs off, admin port still answers").

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Flows get none from here on.
static FOR_FLOWS: AtomicI32 = AtomicI32::new(RawFd::MAX);
/// No client is let in from here on: those who are in still need one to their node.
static FOR_CLIENTS: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// Most that are kept from flows; as many again are kept from new clients.
const KEPT: u64 = 64;

/// Notes the limit of this process: a sixteenth of it, at most 64, is kept from flows.
pub fn limited_to(limit: u64) {
    let (flows, clients) = shares(limit);
    FOR_FLOWS.store(flows, Ordering::Relaxed);
    FOR_CLIENTS.store(clients, Ordering::Relaxed);
}

fn shares(limit: u64) -> (RawFd, RawFd) {
    let kept = (limit / 16).min(KEPT);
    let below = |kept| RawFd::try_from(limit - kept).unwrap_or(RawFd::MAX);
    (below(kept), below(2 * kept))
}

/// A descriptor that a flow was given.
///
/// Errors: EMFILE if it is one of those that are kept; it is closed.
pub fn for_flow<T: AsRawFd>(descriptor: T) -> io::Result<T> {
    if descriptor.as_raw_fd() < FOR_FLOWS.load(Ordering::Relaxed) {
        Ok(descriptor)
    } else {
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }
}

/// Whether a client that was given it must wait until there are more.
pub fn are_scarce(given: &impl AsRawFd) -> bool {
    given.as_raw_fd() >= FOR_CLIENTS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept() {
        let cases = [
            (1024, (960, 896)),
            (256, (240, 224)),
            (10, (10, 10)),
            (524_288, (524_224, 524_160)),
            (libc::RLIM_INFINITY, (RawFd::MAX, RawFd::MAX)),
        ];
        for (limit, expected) in cases {
            assert_eq!(shares(limit), expected, "{limit}");
        }
    }
}
