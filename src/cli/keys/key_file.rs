//! Reads and writes a file of secrets.
//!
//! In: a path and the text. Out: the file, whole or as it was before: the text is written beside it, brought to
//! the disk, and put in its place in one step. Nobody but its owner and group can read it at any moment.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Largest file: 16 keys with comments are 4 KiB.
const MAX_BYTES: u64 = 64 * 1024;
/// Rights of a new file, and of the owner in any case.
const PRIVATE: u32 = 0o600;
/// Rights that a file may keep: those of its owner and group.
const KEPT: u32 = 0o660;

/// Reads the file at `path`. Errors: it cannot be read, is larger than 64 KiB, or is not UTF-8.
pub fn read(path: &Path) -> Result<String, String> {
    let text = || {
        let mut text = String::new();
        File::open(path)?
            .take(MAX_BYTES + 1)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = text().map_err(|e| named(path, &e))?;
    match text.len() as u64 > MAX_BYTES {
        true => Err(format!(
            "{}: larger than 64 KiB, so no key file",
            path.display()
        )),
        false => Ok(text),
    }
}

/// Writes a new file, mode 600. Errors: it exists already; those of the system.
pub fn create(path: &Path, text: &str) -> Result<(), String> {
    let fresh = beside(path, text, None).map_err(|e| named(path, &e))?;
    // A rename would replace a file that has come meanwhile.
    let linked = fs::hard_link(&fresh, path);
    let removed = fs::remove_file(&fresh);
    match linked.and(removed) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(format!(
            "{}: exists already; `pushgate keys rotate` changes it",
            path.display()
        )),
        done => done.map_err(|e| named(path, &e)),
    }
}

/// Replaces a file. Owner, group and mode stay; everybody else loses the right to read it. A symbolic link stays,
/// and the file behind it is replaced. Errors: those of the system.
pub fn replace(path: &Path, text: &str) -> Result<(), String> {
    let replaced = || {
        let path = path.canonicalize()?;
        let fresh = beside(&path, text, Some(&path.metadata()?))?;
        fs::rename(&fresh, &path).inspect_err(|_| drop(fs::remove_file(&fresh)))
    };
    replaced().map_err(|e| named(path, &e))
}

/// Writes the text to a file beside `path`, with the rights of `like`, and returns its path.
fn beside(path: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(hidden);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&fresh)?;
    match fill(&mut file, text, like) {
        Ok(()) => Ok(fresh),
        Err(e) => {
            drop(fs::remove_file(&fresh));
            Err(e)
        }
    }
}

fn fill(file: &mut File, text: &str, like: Option<&fs::Metadata>) -> io::Result<()> {
    if let Some(like) = like {
        fchown(&*file, Some(like.uid()), Some(like.gid()))?;
        let mode = like.mode() & KEPT | PRIVATE;
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn named(path: &Path, e: &io::Error) -> String {
    format!("{}: {e}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a link stays a link, others lose the right to read, and nothing is left beside the file. Fails if
    /// the link is replaced by a file, or a file stays behind after a failure.
    #[test]
    fn a_file_is_replaced_behind_its_link() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, link) = (dir.path().join("keys"), dir.path().join("link"));
        fs::write(&file, "old").expect("a file");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a mode");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        replace(&link, "new").expect("replaced");
        assert_eq!(read(&link).expect("text"), "new");
        assert!(link.symlink_metadata().expect("a link").is_symlink());
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let nowhere = dir.path().join("nowhere");
        let told = replace(&nowhere, "new").expect_err("no file");
        assert!(told.starts_with(&nowhere.display().to_string()), "{told}");
        let told = create(&file, "third").expect_err("it exists");
        assert!(told.contains("exists already"), "{told}");
        assert!(create(Path::new("/"), "new").is_err());
        assert_eq!(read(&file).expect("text"), "new");
        assert_eq!(fs::read_dir(dir.path()).expect("entries").count(), 2);
    }

    /// Aim: a file without an end is refused. Fails if all of it is read.
    #[test]
    fn a_file_without_end_is_refused() {
        let told = read(Path::new("/dev/zero")).expect_err("no end");
        assert!(told.contains("larger than 64 KiB"), "{told}");
    }
}
