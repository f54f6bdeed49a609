//! Reserves the last descriptors for checks, the admin endpoint, logs and a reload: flows do not get them.
//!
//! In: the process limit, descriptors that flows were given. Out: whether a flow may keep its descriptor. The
//! kernel gives the lowest free number, so the number itself says how many are in use; no count is kept.
//! Source: FAULTS D54 ("accept backs off, admin port still answers").

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Flows get no descriptor from this number on.
static FOR_FLOWS: AtomicI32 = AtomicI32::new(RawFd::MAX);
/// New clients wait from this number on: connected ones still need a descriptor for their node.
static FOR_CLIENTS: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// Most descriptors reserved from flows; as many again are reserved from new clients. The admin endpoint may
/// have 64, each check of a node one, and a reload opens sockets before it closes the old ones.
const KEPT: u64 = 128;

/// Sets the limit of this process: a sixteenth of it, at most `KEPT`, is reserved from flows.
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

/// Passes on a descriptor that a flow was given.
///
/// Errors: EMFILE if the descriptor is a reserved one; it is closed.
pub fn for_flow<T: AsRawFd>(descriptor: T) -> io::Result<T> {
    if descriptor.as_raw_fd() < FOR_FLOWS.load(Ordering::Relaxed) {
        Ok(descriptor)
    } else {
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }
}

/// Returns the number of descriptors that clients and their flows may use.
pub fn for_clients() -> usize {
    FOR_CLIENTS.load(Ordering::Relaxed).max(0) as usize
}

/// Whether a new client that got `given` must wait until more descriptors are free.
pub fn are_scarce(given: &impl AsRawFd) -> bool {
    given.as_raw_fd() >= FOR_CLIENTS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_limit() {
        let cases = [
            (1024, (960, 896)),
            (256, (240, 224)),
            (10, (10, 10)),
            (20_000, (19_872, 19_744)),
            (524_288, (524_160, 524_032)),
            (libc::RLIM_INFINITY, (RawFd::MAX, RawFd::MAX)),
        ];
        for (limit, expected) in cases {
            assert_eq!(shares(limit), expected, "{limit}");
        }
    }
}
