//! Writes the number of this process to a file, for scripts that send it signals.
//!
//! In: `pid_file`. Out: the file with one line, as long as this process serves. A successor replaces it.

use std::io;
use std::path::{Path, PathBuf};

/// The file.
#[derive(Clone, Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// The file at `path`, not written yet.
    pub fn at(path: PathBuf) -> Self {
        PidFile(path)
    }

    /// Writes the file in one step. Called by the process that stays, after a daemon's fork.
    ///
    /// Errors: those of the system, with the path.
    pub fn write(&self) -> Result<(), String> {
        let number = std::process::id();
        let fresh = self.0.with_extension(format!("{number}.new"));
        let written = std::fs::write(&fresh, format!("{number}\n"));
        let written = written.and_then(|()| std::fs::rename(&fresh, &self.0));
        written.map_err(|e| format!("pid_file {}: {e}", self.0.display()))
    }

    /// Removes the file, unless another process has written it since.
    pub fn remove(&self) {
        if let Err(e) = remove_own(&self.0) {
            log::warn!("pid_file {}: cannot remove it: {e}", self.0.display());
        }
    }
}

fn remove_own(path: &Path) -> io::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    match text.trim() == std::process::id().to_string() {
        true => std::fs::remove_file(path),
        false => Ok(()),
    }
}
