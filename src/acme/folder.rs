//! Keeps what orders leave behind, in one folder: account, certificates with their keys, open challenges, locks.
//!
//! In: a folder, which edges may share. Out: files that only the edge's user reads, each replaced in one step. All of
//! this waits for a file system, so it runs on a file thread.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use openssl::sha::sha256;

use super::lock::{Lock, age};
use super::proof::Proof;
use super::series::Series;

/// Folder of open challenges in the state folder.
const OPEN: &str = "challenges";
/// Extension of the files with failures in a row.
const FAILED: &str = "failed";
/// Longest account or challenge that is read, in bytes; real ones are below 1 KiB.
const MAX_BYTES: u64 = 16 * 1024;
/// Most open challenges: ten orders of a hundred names.
const MAX_OPEN: usize = 1000;
/// A challenge that is older was left behind: an order ends within minutes.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// An account is replaced once in this time: authorities count new ones, and one that refuses a new account refuses
/// the next one too.
const LIFE_OF_ACCOUNT: Duration = Duration::from_secs(86_400);

/// A state folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, which need not be there.
    pub fn at(path: PathBuf) -> Self {
        Folder(path)
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder, if it is not there, and removes what a crash left in it: that may hold a key.
    ///
    /// Errors: those of the system, with the path.
    pub fn make(&self) -> Result<(), String> {
        let open = self.0.join(OPEN);
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&open);
        made.map_err(|e| told(&open, &e))?;
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            let is_half = name.starts_with('.') && name.ends_with(".new");
            if is_half && age(&path).is_ok_and(|age| age > FORGOTTEN) {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Takes the lock of the certificate with this `file`; `None`: another process orders it.
    ///
    /// Errors: as [`Lock::take`].
    pub fn lock(&self, file: &Path) -> Result<Option<Lock>, String> {
        Lock::take(&file.with_extension("lock"))
    }

    /// Takes the lock under which an account is registered; `None`: another order does it.
    ///
    /// Errors: as [`Lock::take`].
    pub fn lock_account(&self, authority: &str) -> Result<Option<Lock>, String> {
        Lock::take(&self.account_file(authority).with_extension("json.lock"))
    }

    /// Returns the failures in a row of the certificate with this `file`, with the time since the last one.
    ///
    /// Errors: those of the system, with the path. No file, or one of nonsense, is no error.
    pub fn series(&self, file: &Path) -> Result<Option<(Series, Duration)>, String> {
        let path = file.with_extension(FAILED);
        match read(&path) {
            Ok(text) => {
                let age = age(&path).map_err(|e| told(&path, &e))?;
                Ok(serde_json::from_str(&text).ok().map(|series| (series, age)))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(told(&path, &e)),
        }
    }

    /// Keeps the failures in a row, for the other edges and the next start; `None`: there are none now.
    ///
    /// Errors: those of the system, with the path.
    pub fn keep_series(&self, file: &Path, series: Option<&Series>) -> Result<(), String> {
        let path = file.with_extension(FAILED);
        let Some(series) = series else {
            return match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(told(&path, &e)),
                _ => Ok(()),
            };
        };
        let text = serde_json::to_string(series).map_err(|e| e.to_string())?;
        self.replace(&path, &text)
    }

    /// Writes `content` to `file` in one step, readable by the edge's user only.
    ///
    /// Errors: those of the system, with the path.
    pub fn replace(&self, file: &Path, content: &str) -> Result<(), String> {
        let fresh = self.fresh(content)?;
        let done = std::fs::rename(&fresh, file);
        // So that a power cut does not bring the old one back.
        let done = done.and_then(|()| std::fs::File::open(&self.0)?.sync_all());
        done.map_err(|e| told(file, &e))
    }

    /// Returns the account at the authority with this URL.
    ///
    /// Errors: those of the system, with the path. No file is no error.
    pub fn account(&self, authority: &str) -> Result<Option<String>, String> {
        let path = self.account_file(authority);
        match read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(told(&path, &e)),
        }
    }

    /// Keeps a new account, unless another edge was first. Returns the one that counts.
    ///
    /// Errors: those of the system, with the path.
    pub fn keep_account(&self, authority: &str, account: &str) -> Result<String, String> {
        let path = self.account_file(authority);
        let fresh = self.fresh(account)?;
        let mut linked = std::fs::hard_link(&fresh, &path);
        if linked.is_err() && !path.exists() {
            // Some file systems have no links. Who registers has a lock.
            linked = std::fs::rename(&fresh, &path);
        }
        let _ = std::fs::remove_file(&fresh);
        match linked {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(told(&path, &e)),
            _ => read(&path).map_err(|e| told(&path, &e)),
        }
    }

    /// Puts aside an account that its authority no longer takes, unless another edge has replaced it. Its key stays
    /// for whoever wants to ask the authority.
    ///
    /// Errors: those of the system, with the path; this account itself replaced one a short time ago.
    pub fn refuse_account(&self, authority: &str, account: &str) -> Result<(), String> {
        let path = self.account_file(authority);
        if !read(&path).is_ok_and(|current| current == account) {
            return Ok(());
        }
        let aside = path.with_extension("refused");
        if aside.exists() && age(&path).is_ok_and(|age| age < LIFE_OF_ACCOUNT) {
            return Err("it refuses an account that is less than a day old too".into());
        }
        std::fs::rename(&path, aside).map_err(|e| told(&path, &e))
    }

    /// Opens challenges, so that each edge of this folder answers them.
    ///
    /// Errors: those of the system, with the path; a token that cannot name a file.
    pub fn open(&self, proofs: &[Proof]) -> Result<(), String> {
        for proof in proofs {
            if !Proof::is_token(&proof.token) {
                return Err("the authority's token is not a word of base64url".into());
            }
            let text = serde_json::to_string(proof).map_err(|e| e.to_string())?;
            self.replace(&self.0.join(OPEN).join(&proof.token), &text)?;
        }
        Ok(())
    }

    /// Closes challenges. What cannot be removed is removed later by [`Folder::challenges`].
    pub fn close(&self, proofs: &[Proof]) {
        for proof in proofs.iter().filter(|p| Proof::is_token(&p.token)) {
            let _ = std::fs::remove_file(self.0.join(OPEN).join(&proof.token));
        }
    }

    /// Returns the open challenges, by token, and removes those that an edge left behind before `now`. A folder that
    /// is not there has none.
    pub fn challenges(&self, now: SystemTime) -> Vec<Proof> {
        let Ok(entries) = std::fs::read_dir(self.0.join(OPEN)) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for entry in entries.flatten().take(MAX_OPEN) {
            let name = entry.file_name();
            let Some(token) = name.to_str().filter(|name| Proof::is_token(name)) else {
                continue;
            };
            let written = entry.metadata().and_then(|meta| meta.modified());
            let age = written.ok().and_then(|then| now.duration_since(then).ok());
            // Our clock may be ahead of those of other edges; the folder's own decides.
            if age.is_some_and(|age| age > FORGOTTEN)
                && self::age(&entry.path()).is_ok_and(|age| age > FORGOTTEN)
            {
                let _ = std::fs::remove_file(entry.path());
                continue;
            }
            let proof = read(&entry.path()).ok();
            let proof = proof.and_then(|text| serde_json::from_str::<Proof>(&text).ok());
            all.extend(proof.filter(|proof| proof.token == token));
        }
        all.sort();
        all
    }

    /// Writes `content` to a new file of the folder.
    fn fresh(&self, content: &str) -> Result<PathBuf, String> {
        let path = self.0.join(format!(".{:016x}.new", fastrand::u64(..)));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        });
        written.map(|()| path.clone()).map_err(|e| {
            let _ = std::fs::remove_file(&path);
            told(&path, &e)
        })
    }

    fn account_file(&self, authority: &str) -> PathBuf {
        let url = authority.trim_start_matches("https://");
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let word: String = url
            .chars()
            .map(|c| if legal(c) { c } else { '-' })
            .collect();
        // Two URLs may have the same word.
        let [a, b, c, d, ..] = sha256(authority.as_bytes());
        let mark = u32::from_be_bytes([a, b, c, d]);
        self.0.join(format!("account-{word}-{mark:08x}.json"))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(MAX_BYTES);
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn told(path: &Path, e: &io::Error) -> String {
    format!("{}: {e}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn proof(token: &str) -> Proof {
        Proof {
            token: token.into(),
            name: "a.example".into(),
            authorization: format!("{token}.mark"),
        }
    }

    /// Aim: the key's file and its folder are for the edge's user only, and nothing else stays behind. Fails if a
    /// file is made with the usual rights and changed later.
    #[test]
    fn files_are_for_their_owner() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::at(dir.path().join("state"));
        folder.make().expect("made");
        let file = dir.path().join("state/a.example.pem");
        folder.replace(&file, "one").expect("written");
        folder.replace(&file, "two").expect("written");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "two");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode(&file) & 0o777, 0o600);
        assert_eq!(mode(&dir.path().join("state")) & 0o777, 0o700);
        let left = std::fs::read_dir(dir.path().join("state")).expect("a folder");
        assert_eq!(left.count(), 2, "the file, and the folder of challenges");
    }

    /// Aim: of two edges that register at once, both use one account; one that was refused makes room. Fails if the
    /// second account replaces the first.
    #[test]
    fn one_account_counts() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::at(dir.path().to_owned());
        let url = "https://ca.example:14000/dir";
        assert_eq!(folder.account(url), Ok(None));
        assert_eq!(folder.keep_account(url, "one").as_deref(), Ok("one"));
        assert_eq!(folder.keep_account(url, "two").as_deref(), Ok("one"));
        assert_eq!(folder.account("https://other.example/dir"), Ok(None));
        folder.refuse_account(url, "two").expect("nothing to do");
        assert_eq!(folder.account(url), Ok(Some("one".into())));
        folder.refuse_account(url, "one").expect("moved");
        assert_eq!(folder.account(url), Ok(None));
        let left = std::fs::read_dir(dir.path()).expect("a folder").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        let name = left[0].to_string_lossy();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(name.starts_with("account-ca.example-14000-dir-") && name.ends_with(".refused"));
        assert_eq!(folder.keep_account(url, "three").as_deref(), Ok("three"));
        let again = folder.refuse_account(url, "three");
        assert!(again.is_err_and(|e| e.contains("less than a day")));
        let similar = "https://ca.example/14000/dir";
        assert_eq!(folder.account(similar), Ok(None), "the same word");
    }

    /// Aim: failures are known to each edge of the folder, and after a restart. Fails if each edge begins its own row of
    /// failures, or if a file of nonsense stops all orders.
    #[test]
    fn failures_outlive_the_edge() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::at(dir.path().to_owned());
        let file = dir.path().join("push.pem");
        let series = Series {
            failures: 5,
            why: "planned by a test".into(),
            ..Series::default()
        };
        assert_eq!(folder.series(&file), Ok(None));
        folder.keep_series(&file, Some(&series)).expect("kept");
        let (kept, age) = folder.series(&file).expect("read").expect("there");
        assert_eq!(kept, series);
        assert!(age < FORGOTTEN, "{age:?}");
        std::fs::write(dir.path().join("push.failed"), "{").expect("write");
        assert_eq!(folder.series(&file), Ok(None), "nonsense");
        folder.keep_series(&file, None).expect("removed");
        folder.keep_series(&file, None).expect("it was not there");
    }

    /// Aim: challenges are seen by whoever shares the folder, and what a killed edge left behind ends. Fails if a
    /// stranger's file is taken for a challenge, or if an edge whose clock is ahead removes those of others.
    #[test]
    fn challenges_open_and_close() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::at(dir.path().to_owned());
        let now = crate::clock::wall();
        assert!(folder.challenges(now).is_empty());
        folder.make().expect("made");
        let both = [proof("one"), proof("two")];
        folder.open(&both).expect("open");
        std::fs::write(dir.path().join("challenges/other"), "{").expect("write");
        assert_eq!(folder.challenges(now), both);
        folder.close(&both[..1]);
        assert_eq!(folder.challenges(now), both[1..]);
        assert_eq!(folder.challenges(now + 2 * FORGOTTEN), both[1..]);
        let two = File::options()
            .append(true)
            .open(dir.path().join("challenges/two"));
        let long_ago = FileTimes::new().set_modified(now - 2 * FORGOTTEN);
        two.expect("open").set_times(long_ago).expect("times");
        assert!(folder.challenges(now).is_empty());
        assert!(!dir.path().join("challenges/two").exists(), "removed");
        let refused = folder.open(&[proof("../two")]);
        assert!(refused.is_err_and(|e| e.contains("base64url")));
    }
}
