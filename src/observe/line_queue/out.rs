//! Where the lines of a log go: standard output, standard error, or a file that log rotation renames.
//!
//! In: whole lines. Out: whole lines; one that was cut by an error is ended before the next one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pause before the next try at a descriptor that another process has made non-blocking.
const PAUSE: Duration = Duration::from_millis(10);

/// Where lines go.
pub struct Out {
    to: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    /// Whether the last line is there in part.
    is_torn: bool,
}

impl Out {
    /// Writes to a stream of this process.
    pub fn stream(to: impl Write + Send + 'static) -> Self {
        Out {
            to: Box::new(to),
            path: None,
            is_torn: false,
        }
    }

    /// Appends to the file at `path`.
    ///
    /// Errors: the file cannot be opened.
    pub fn file(path: PathBuf) -> io::Result<Self> {
        let file = append(&path)?;
        Ok(Out {
            path: Some(path),
            ..Out::stream(file)
        })
    }

    /// Opens the file again. If that fails, it logs an error and goes on with the old file.
    pub(super) fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match append(path) {
            Ok(file) => {
                self.to = Box::new(file);
                self.is_torn = false;
            }
            Err(e) => log::error!(
                "log {}: cannot reopen it, still writing to the old file: {e}",
                path.display()
            ),
        }
    }

    /// Writes one line.
    ///
    /// Errors: those of the system. A part of the line may have been written.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.whole(b"\n")?;
            self.is_torn = false;
        }
        self.whole(line)?;
        self.to.flush()
    }

    fn whole(&mut self, mut left: &[u8]) -> io::Result<()> {
        while !left.is_empty() {
            match self.to.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    left = left.get(n..).unwrap_or_default();
                    self.is_torn = true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                Err(e) => return Err(e),
            }
        }
        self.is_torn = false;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).open(path)
}
