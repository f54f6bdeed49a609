//! A file that says which edge orders a certificate, so that edges that share a folder do not do it twice.
//!
//! In: the path of the file. Out: a lock, or that another process has it. A lock whose process is gone, or that is
//! older than an order can take, counts no more. A lock that fails costs one order too many, and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// After this time a lock counts no more: the longest order, of a hundred names, ends within 380 s.
const LIFE: Duration = Duration::from_secs(420);
/// Longest content that is read, in bytes.
const MAX_BYTES: u64 = 1024;

/// A lock that this process holds, until it is released.
pub struct Lock {
    path: PathBuf,
    content: String,
}

impl Lock {
    /// Takes the lock at `path`; `None`: another process has it.
    ///
    /// Errors: the file cannot be written.
    pub fn take(path: &Path) -> Result<Option<Lock>, String> {
        let lock = Lock {
            path: path.to_owned(),
            content: format!(
                "{} {} {:016x}\n",
                machine(),
                std::process::id(),
                fastrand::u64(..)
            ),
        };
        if lock.write()? {
            return Ok(Some(lock));
        }
        if !lock.is_free()? {
            return Ok(None);
        }
        Ok(lock.write()?.then_some(lock))
    }

    /// Gives the lock back, unless another process has taken it over meanwhile.
    pub fn release(self) {
        if read(&self.path).is_some_and(|content| content == self.content) {
            // A lock that stays counts no more once this process is gone, or after its life.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Writes the file if there is none. Returns whether it did.
    fn write(&self) -> Result<bool, String> {
        match create(&self.path) {
            Ok(mut file) => {
                let written = file.write_all(self.content.as_bytes());
                written.map_err(|e| self.failed(&e)).map(|()| true)
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(self.failed(&e)),
        }
    }

    /// Removes a lock that counts no more. Returns whether there is none now.
    fn is_free(&self) -> Result<bool, String> {
        let Some(theirs) = read(&self.path) else {
            return Ok(true);
        };
        if !is_gone(&theirs) && age(&self.path).map_err(|e| self.failed(&e))? < LIFE {
            return Ok(false);
        }
        // Moved first: of two edges that find it too old, one gets it, and neither removes the other's new one.
        let aside = self
            .path
            .with_extension(format!("{:016x}.old", fastrand::u64(..)));
        if std::fs::rename(&self.path, &aside).is_err() {
            return Ok(false);
        }
        let same = read(&aside).is_some_and(|moved| moved == theirs);
        let back = match same {
            true => std::fs::remove_file(&aside),
            false => std::fs::rename(&aside, &self.path),
        };
        back.map_err(|e| self.failed(&e)).map(|()| same)
    }

    fn failed(&self, e: &std::io::Error) -> String {
        format!("{}: {e}", self.path.display())
    }
}

/// Returns how long ago the file at `path` was written, by the clock of its folder: that of a file server may differ
/// from ours. A file that is gone is very old.
///
/// Errors: no file can be written beside it.
pub(super) fn age(path: &Path) -> std::io::Result<Duration> {
    let now = path.with_extension(format!("{:016x}.now", fastrand::u64(..)));
    let made = create(&now).and_then(|file| file.metadata());
    let _ = std::fs::remove_file(&now);
    let then = std::fs::metadata(path).map(|meta| meta.mtime());
    let seconds = made?.mtime().saturating_sub(then.unwrap_or_default());
    Ok(Duration::from_secs(
        u64::try_from(seconds).unwrap_or_default(),
    ))
}

fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut content = String::new();
    let mut file = File::open(path).ok()?.take(MAX_BYTES);
    file.read_to_string(&mut content).ok()?;
    Some(content)
}

/// Whether the process that wrote `content` ran here and has ended.
fn is_gone(content: &str) -> bool {
    let mut words = content.split_whitespace();
    let here = words.next().is_some_and(|place| place == machine());
    let number = words.next().and_then(|n| n.parse::<u32>().ok());
    here && number.is_some_and(|n| !Path::new(&format!("/proc/{n}")).exists())
}

/// Names this start of this machine, and the processes that this one sees.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), space.display())
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use super::*;

    fn old(path: &Path, content: &str, seconds: u64) {
        let file = File::create(path).expect("a lock");
        std::fs::write(path, content).expect("write");
        let then = crate::clock::wall() - Duration::from_secs(seconds);
        file.set_times(FileTimes::new().set_modified(then))
            .expect("times");
    }

    /// Aim: one process at a time orders, and an edge that was killed stops nobody. Fails if a lock is never free
    /// again, or is taken from an edge that still works.
    #[test]
    fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("push.example.lock");
        let take = || Lock::take(&path).expect("the folder is ours");
        let first = take().expect("free");
        assert!(take().is_none(), "held by this process");
        first.release();
        let again = take().expect("released");
        let stranger = "another-machine/pid:[1] 1 0\n";
        old(&path, stranger, 10);
        again.release();
        assert!(take().is_none(), "taken over by another machine");
        old(&path, stranger, LIFE.as_secs() + 10);
        take().expect("too old").release();
        // Numbers of processes end at 4,194,304.
        old(&path, &format!("{} 4194999 0\n", machine()), 0);
        take().expect("its process is gone").release();
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").collect();
        assert!(left.is_empty(), "{left:?}");
        let none = dir.path().join("absent").join("a.lock");
        assert!(Lock::take(&none).is_err_and(|e| e.contains("absent/a.lock")));
    }
}
