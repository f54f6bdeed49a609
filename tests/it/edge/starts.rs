//! Less usual starts: on a pipe that nobody reads, by another path, beside a running process.
//!
//! In: a configuration. Out: a running edge; the pipe, which a test fills.

use std::fs::OpenOptions;
use std::io::{ErrorKind, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Edge, FILE, command, complete, token};
use crate::vip::Block;

/// Both ends of the pipe.
pub struct Pipe {
    /// What the edge has written, once a test wants to read it.
    pub reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    /// Fills the pipe, so that the next write of the edge would block.
    pub fn fill(&self) {
        // Opened anew: the edge shares the flags of the writer we have.
        let path = format!("/proc/self/fd/{}", self.writer.as_raw_fd());
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        let mut pipe = options.open(path).expect("the pipe");
        for size in [4096, 1] {
            let full = loop {
                if let Err(e) = pipe.write_all(&[b'x'; 4096][..size]) {
                    break e;
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock);
        }
    }
}

impl Edge {
    /// As [`Edge::start`], with a pipe as standard error.
    pub async fn start_on_pipe(block: &Block, yaml: &str) -> (Edge, Pipe) {
        let dir = tempfile::tempdir().expect("a folder for the configuration");
        let yaml = complete(block, yaml);
        std::fs::write(dir.path().join(FILE), &yaml).expect("write the configuration");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let theirs = writer.try_clone().expect("a descriptor");
        let child = command(dir.path(), &["run"], &[]).stderr(theirs).spawn();
        let mut edge = Self::of(child, Arc::new(dir), block.admin(), token(&yaml));
        edge.ready().await;
        (edge, Pipe { reader, writer })
    }

    /// As [`Edge::start`], by the path `program`.
    pub async fn start_by(program: &Path, block: &Block, yaml: &str) -> Edge {
        let dir = tempfile::tempdir().expect("a folder for the configuration");
        let yaml = complete(block, yaml);
        std::fs::write(dir.path().join(FILE), &yaml).expect("write the configuration");
        let mut command = Command::new(program);
        command.args(["run", "-c"]).arg(dir.path().join(FILE));
        command.stdin(Stdio::null());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut edge = Self::of(child, Arc::new(dir), block.admin(), token(&yaml));
        edge.ready().await;
        edge
    }

    /// As [`Edge::start`], but waits for nothing.
    pub fn start_unseen(block: &Block, yaml: &str) -> Edge {
        let dir = tempfile::tempdir().expect("a folder for the configuration");
        let yaml = complete(block, yaml);
        std::fs::write(dir.path().join(FILE), &yaml).expect("write the configuration");
        Self::spawn(Arc::new(dir), block.admin(), token(&yaml), &["run"], &[])
    }

    /// Starts another process from the same file, without `-u`.
    pub fn rival(&self) -> Edge {
        let token = self.token.clone();
        Self::spawn(self.dir.clone(), self.admin, token, &["run"], &[])
    }

    /// Starts `pushgate quick` with these arguments, among them `--admin` with the block's address.
    pub async fn quick(block: &Block, args: &[&str]) -> Edge {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
        let command = command.args(args).stdin(Stdio::null());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut edge = Self::of(child, Arc::new(dir), block.admin(), None);
        edge.ready().await;
        edge
    }
}
