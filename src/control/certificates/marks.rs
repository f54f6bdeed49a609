//! Looks at the files of certificates, and notices which have changed.
//!
//! In: a configuration. Out: whether a file has changed since the last look, and which files do not answer, be
//! it when they are looked at or when they are read. A file system that hangs, like NFS without its server, keeps
//! its own files from being renewed. Each file that hangs delays the others by one round, of 2 to 5 s.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::config::{Certificate, Config};
use crate::control::file_thread::on_file_thread;
use crate::credentials::{Mark, Reading};

/// Time without an answer after which a file counts as hung, at least; at most twice that. A disk that spins up needs a
/// few seconds, and its files are looked at again afterwards.
const HANG: Duration = Duration::from_secs(2);
/// While this many files hang, each with its thread, no other is looked at.
const MAX_HUNG: usize = 16;

/// State of each file at the last look.
#[derive(Default)]
pub struct Marks {
    known: BTreeMap<PathBuf, Mark>,
    /// Threads that wait for a file.
    hung: Vec<Reading>,
}

/// What one look at all files has found so far.
#[derive(Clone, Default)]
struct Look(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    marks: Vec<(PathBuf, Mark)>,
    /// Whether the caller has stopped to wait; the thread then ends after this file.
    given_up: bool,
}

impl Look {
    fn run(&self, files: Vec<PathBuf>) {
        for file in files {
            let mark = Mark::of(&file);
            let mut seen = self.0.lock();
            seen.marks.push((file, mark));
            if seen.given_up {
                return;
            }
        }
    }
}

impl Marks {
    /// Whether a file has changed since the last look. One that a new configuration adds counts if it has changed since
    /// `loaded`, when the configuration's files began to be read. One that answers again after it hung counts.
    pub async fn have_changed(&mut self, config: &Config, loaded: SystemTime) -> bool {
        let before = self.hung.len();
        self.hung.retain(|reading| reading.file().is_some());
        let answers_again = self.hung.len() < before;
        if self.hung.len() >= MAX_HUNG {
            return answers_again;
        }
        let files = files(config);
        let hung = self.hung_files();
        let answering = files.iter().filter(|file| !hung.contains(*file)).cloned();
        let (look, answering) = (Look::default(), answering.collect());
        let run = look.clone();
        if let Err(why) = self.run(move || run.run(answering)).await {
            log::error!("cannot look at certificates: {why}");
        }
        let seen = {
            let mut seen = look.0.lock();
            seen.given_up = true;
            std::mem::take(&mut seen.marks)
        };
        let changed = seen.iter().any(|(path, mark)| {
            let old = self.known.get(path);
            old.map_or_else(|| mark.is_since(loaded), |old| old != mark)
        });
        let wanted: BTreeSet<PathBuf> = files.into_iter().collect();
        self.known.retain(|path, _| wanted.contains(path));
        self.known.extend(seen);
        changed || answers_again
    }

    /// Runs `work`, which reads files, on a file thread. Returns whether it has ended. It is given up when it waits
    /// for one file for [`HANG`], and that file then counts as hung.
    ///
    /// Errors: as [`on_file_thread`].
    pub async fn run(&mut self, work: impl FnOnce() + Send + 'static) -> Result<bool, String> {
        let reading = Reading::default();
        let run = reading.clone();
        let mut ended = pin!(on_file_thread(move || run.during(work)));
        let mut before = None;
        loop {
            if let Ok(result) = tokio::time::timeout(HANG, &mut ended).await {
                return result.map(|()| true);
            }
            let steps = reading.steps();
            if before.replace(steps) == Some(steps)
                && let Some(file) = reading.file()
            {
                log::error!(
                    "{}: its file system does not answer; a renewal of this file is not noticed until it does",
                    file.display()
                );
                self.hung.push(reading);
                return Ok(false);
            }
        }
    }

    /// Returns the files that do not answer.
    pub fn hung_files(&self) -> BTreeSet<PathBuf> {
        self.hung.iter().filter_map(Reading::file).collect()
    }
}

/// Returns the certificates with a file in `hung`.
pub fn certificates_of(hung: &BTreeSet<PathBuf>, config: &Config) -> BTreeSet<String> {
    let hangs = |c: &Certificate| c.files().any(|file| hung.contains(&config.dir.join(file)));
    let all = config.certificates.iter().filter(|(_, c)| hangs(c));
    all.map(|(name, _)| name.clone()).collect()
}

/// Returns every file whose change is noticed.
fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for c in config.certificates.values() {
        files.extend(c.files());
    }
    let listeners = config.listeners.iter().filter_map(|l| l.tls.as_ref());
    for tls in listeners {
        files.extend(
            [&tls.client_ca, &tls.client_crl]
                .into_iter()
                .flatten()
                .cloned(),
        );
    }
    let found = config.pools.values().filter_map(|p| p.discover.as_ref());
    let found = found.filter_map(|d| d.tls.as_ref());
    let nodes = config.nodes.values().filter_map(|n| n.tls.as_ref());
    for tls in nodes.chain(found) {
        files.extend([&tls.ca_file, &tls.crl_file].into_iter().flatten().cloned());
    }
    files.extend(config.tickets.file.clone());
    files.into_iter().map(|f| config.dir.join(f)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::wall;

    /// Aim: a renewal hook that only mends the mode or owner of a file is noticed, also between the load and the first
    /// look. Fails if the marks have no time of change of the inode (ctime), or if the first look sees no change.
    #[tokio::test]
    async fn a_changed_mode_is_a_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let yaml = "certificates: { c: { chain: c.pem, key: c.pem } }\nlisteners: []";
        let mut config: Config = serde_yaml::from_str(yaml).expect("YAML");
        config.dir = dir.path().to_owned();
        let file = dir.path().join("c.pem");
        std::fs::write(&file, "x").expect("write");
        let (mut marks, loaded) = (Marks::default(), wall());
        marks.have_changed(&config, loaded).await;
        assert!(!marks.have_changed(&config, loaded).await);
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("chmod");
        assert!(marks.have_changed(&config, loaded).await);
        assert!(!marks.have_changed(&config, loaded).await);
        // The first look comes some time after the load.
        let first = async |loaded| Marks::default().have_changed(&config, loaded).await;
        assert!(first(loaded).await, "a renewal before the first look");
        let minute = Duration::from_secs(60);
        assert!(!first(wall() + minute).await, "it was read");
    }

    /// Aim: each file that TLS names is watched, those of nodes that DNS finds too. Fails if a block is left
    /// out: its renewed file would be used only after a reload.
    #[test]
    fn every_file_is_watched() {
        let yaml = "certificates:\n  a: { chain: a.pem, key: a.key, ocsp: { file: a.ocsp } }\n  \
            b: { keystore: b.p12, password_file: b.pass }\n\
            nodes: { n: { address: 10.0.0.1:1, tls: { ca_file: n.pem, crl_file: n.crl } } }\n\
            pools: { p: { discover: { host: push.internal:1, tls: { ca_file: p.pem, crl_file: p.crl } } } }\n\
            tickets: { file: t.keys }\n\
            listeners:\n  - { name: l, bind: [], mode: tcp, tls: { certificates: [a], client_ca: l.pem, \
            client_crl: l.crl } }\n";
        let config: Config = serde_yaml::with::singleton_map_recursive::deserialize(
            serde_yaml::Deserializer::from_str(yaml),
        )
        .expect("YAML");
        let mut watched: Vec<_> = files(&config)
            .iter()
            .map(|f| f.display().to_string())
            .collect();
        watched.sort();
        let all = "a.key a.ocsp a.pem b.p12 b.pass l.crl l.pem n.crl n.pem p.crl p.pem t.keys";
        assert_eq!(watched.join(" "), all);
    }
}
