//! Edges whose process gets a limit, or enters a cgroup, before the program starts.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Edge, FILE, command, complete, token};
use crate::vip::Block;

impl Edge {
    /// As [`Edge::start`], with a limit of file descriptors.
    pub async fn start_limited(block: &Block, yaml: &str, descriptors: u64) -> Edge {
        let limit = libc::rlimit {
            rlim_cur: descriptors,
            rlim_max: descriptors,
        };
        // SAFETY: setrlimit(2) only reads the struct it is given.
        let limited = move || match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        Self::start_prepared(block, yaml, limited).await
    }

    /// As [`Edge::start`], in the cgroup with this file of processes.
    pub async fn start_in(block: &Block, yaml: &str, processes: PathBuf) -> Edge {
        // `0` is the process that writes.
        let enter = move || std::fs::write(&processes, "0");
        Self::start_prepared(block, yaml, enter).await
    }

    /// As [`Edge::start`]; the new process first calls `prepare`, which makes a few system calls.
    async fn start_prepared(
        block: &Block,
        yaml: &str,
        prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Edge {
        let dir = tempfile::tempdir().expect("a folder for the configuration");
        let yaml = complete(block, yaml);
        std::fs::write(dir.path().join(FILE), &yaml).expect("write the configuration");
        let mut command = command(dir.path(), &["run"], &[]);
        // SAFETY: between fork and exec the child has one thread, and `prepare` touches nothing of ours.
        let child = unsafe { command.pre_exec(prepare) }.spawn();
        let mut edge = Self::of(child, Arc::new(dir), block.admin(), token(&yaml));
        edge.ready().await;
        edge
    }
}
