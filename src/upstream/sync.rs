//! The atomics of `signal` and `stage`. tests/loom compiles those two files with loom's atomics instead.

pub use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub use futures_util::task::AtomicWaker;
