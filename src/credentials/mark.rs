//! Notices that a file has changed, without reading it.
//!
//! In: paths. Out: marks; two marks of a file differ if it changed between them, however the change was made,
//! unless both changes fall into one step of the file system's clock.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::reading::note;
use super::{Certificate, Ocsp};

/// Seconds from a file's last change until a further change surely shows: file systems keep times in steps, of up
/// to 2 s (FAT). A file read within that time of its last change is read again.
const STEP: i64 = 2;

/// The clock of files is so far behind at most.
const TICK: Duration = Duration::from_millis(20);

/// State of a file, so that a change shows; also that it cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(Option<State>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Last change of the content: seconds since 1970, nanoseconds.
    content: (i64, i64),
    /// Last change of content, owner or mode.
    any: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl Mark {
    /// Looks at the file at `path`.
    pub fn of(path: &Path) -> Mark {
        let _noted = note(path);
        let meta = std::fs::metadata(path).ok();
        Mark(meta.map(|meta| State {
            content: (meta.mtime(), meta.mtime_nsec()),
            any: (meta.ctime(), meta.ctime_nsec()),
            bytes: meta.len(),
            inode: meta.ino(),
        }))
    }

    /// Whether the file has changed since `time`. False for one that cannot be looked at.
    pub fn is_since(&self, time: SystemTime) -> bool {
        let since = time
            .checked_sub(TICK)
            .and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since = since.map_or((0, 0), |t| {
            (t.as_secs() as i64, i64::from(t.subsec_nanos()))
        });
        self.0.as_ref().is_some_and(|state| state.any >= since)
    }

    /// Whether a change after `now`, in seconds since 1970, gives another mark.
    fn shows_changes_after(&self, now: i64) -> bool {
        let state = self.0.as_ref();
        state.is_some_and(|s| s.content.0.max(s.any.0) + STEP < now)
    }
}

/// The files of a loaded certificate, as they were before they were read.
pub(super) struct Marks(Vec<(PathBuf, Mark)>);

impl Marks {
    /// Looks at the files of `certificate`, at `now`, in seconds since 1970. `None`: it must be read each time,
    /// because what a keystore gives depends on the date, a responder is asked again at each load, and a file may
    /// have changed just now or be missing.
    pub fn of(certificate: &Certificate, dir: &Path, now: i64) -> Option<Marks> {
        if certificate.keystore.is_some() || certificate.ocsp == Ocsp::Responder {
            return None;
        }
        let files = certificate.files().map(|file| dir.join(file));
        let marks: Vec<_> = files.map(|file| (Mark::of(&file), file)).collect();
        let all = marks.iter().all(|(mark, _)| mark.shows_changes_after(now));
        all.then(|| Marks(marks.into_iter().map(|(mark, file)| (file, mark)).collect()))
    }

    /// Whether each file is still as it was.
    pub fn hold(&self) -> bool {
        self.0.iter().all(|(file, mark)| Mark::of(file) == *mark)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    /// Aim: a file that changed less than a step ago is read again. Fails if a mark is trusted at once: a change
    /// within the same step of the file system's clock would never show.
    #[test]
    fn a_fresh_mark_is_not_trusted() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("c.pem");
        let file = File::create(&path).expect("a file");
        let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
        file.set_times(old).expect("times");
        let mark = Mark::of(&path);
        let now = crate::clock::wall().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs() as i64;
        assert_ne!(mark, Mark(None));
        // Its inode changed just now.
        assert!(!mark.shows_changes_after(now));
        assert!(mark.shows_changes_after(now + 2 * STEP));
        assert!(!Mark(None).shows_changes_after(now));
    }
}
