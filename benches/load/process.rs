//! Reads the CPU time and memory that a process and its descendants use.
//!
//! In: a process id. Out: nanoseconds and bytes from `/proc`. Source: proc(5).

use std::fs;

/// A proxy under measurement: its first process and all descendants of that.
#[derive(Clone, Copy)]
pub struct Process(u32);

impl Process {
    /// Refers to the process with id `pid`.
    pub fn new(pid: u32) -> Self {
        Process(pid)
    }

    /// Returns the CPU time of all live threads, in nanoseconds. It misses threads that ended, but these
    /// proxies start their threads before the window.
    pub fn cpu_ns(self) -> u64 {
        let threads = self.tree().into_iter().flat_map(|pid| {
            fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten()
        });
        threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Returns the proportional set size (PSS), in bytes: a shared page counts in proportion to its users.
    pub fn pss_bytes(self) -> u64 {
        let kib = self.tree().into_iter().filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find(|l| l.starts_with("Pss:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        kib.sum::<u64>() * 1024
    }

    fn tree(self) -> Vec<u32> {
        let mut all = vec![self.0];
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            let path = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(path).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|c| c.parse::<u32>().ok()),
            );
            next += 1;
        }
        all
    }
}
