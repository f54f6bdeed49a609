//! The sockets that one thread watches.

use std::collections::HashMap;
use std::os::fd::RawFd;

use parking_lot::Mutex;

/// The sockets of one thread, each with its limit in milliseconds: a `Duration` takes 16 bytes, and each flow
/// has two sockets. A socket is removed here before it is closed, so every descriptor in the map is open.
pub(super) type Sockets = Mutex<HashMap<RawFd, u32>>;

/// Sockets checked before the watch yields to other tasks of the thread: some 0.1 ms.
pub(super) const SLICE: usize = 32;
