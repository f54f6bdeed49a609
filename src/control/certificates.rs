//! Keeps certificates, ticket keys and OCSP responses fresh while the edge runs.
//!
//! In: changes of the files, time, answers of OCSP responders. Out: listeners that serve the new ones. If a
//! file cannot be read, the old certificate or key stays in use. Source: FAULTS D36; RFC 6960 §A.1.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Running;
use super::parts::Parts;
use crate::config::{Config, Ocsp};
use crate::credentials::ocsp::{Staple, ask};
use crate::credentials::unix_now;
use crate::observe::metrics;
use crate::tls::Store;

/// Period of checks for changed files: a renewed certificate is served within two periods.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most concurrent requests to OCSP responders: thousands of certificates often share one responder.
const MAX_ASKING: usize = 16;

/// A certificate as the admin endpoint shows it.
pub struct Shown {
    /// Name in the configuration.
    pub name: String,
    /// Host names it covers.
    pub names: Vec<String>,
    /// Kind of its key.
    pub key: &'static str,
    /// End of its validity, in seconds since 1970.
    pub not_after: i64,
    /// Whole days until that end.
    pub days_left: i64,
    /// Listeners that may serve it.
    pub listeners: Vec<String>,
    /// Whether its chain leads to a root.
    pub complete: bool,
    /// Whether an OCSP response is stapled.
    pub stapled: bool,
}

impl Running {
    /// Returns all certificates, by name.
    pub fn certificates(&self) -> Vec<Shown> {
        let now = unix_now();
        let parts = self.parts();
        let serving = |name: &String| {
            let all = parts.listeners.values().map(|l| &l.conf);
            let serves = all.filter(|l| {
                let tls = l.tls.as_ref();
                tls.is_some_and(|t| t.certificates.contains(name))
            });
            let mut names: Vec<_> = serves.map(|l| l.name.clone()).collect();
            names.sort();
            names
        };
        let all = parts.store.iter();
        all.map(|(name, loaded)| Shown {
            name: name.clone(),
            names: loaded.names.clone(),
            key: loaded.kind(),
            not_after: loaded.not_after(),
            days_left: loaded.days_left(now),
            listeners: serving(name),
            complete: loaded.complete,
            stapled: loaded.staple.response(now).is_some(),
        })
        .collect()
    }

    /// Reloads certificates and ticket keys; live connections keep theirs. If one cannot be read, the old one
    /// stays in use, and a log line and a metric report it.
    pub fn refresh_certificates(&self) {
        let (config, old) = {
            let parts = self.parts();
            let Some(config) = parts.config.clone() else {
                return;
            };
            (config, parts.store.clone())
        };
        // Without the lock, because reading thousands of files takes long.
        let (store, faults) = old.refreshed(&config);
        let mut good = faults.is_empty();
        for (name, fault) in &faults {
            log::error!("certificate {name}: {fault}; still serving the old one");
        }
        let mut parts = self.parts();
        if !parts
            .config
            .as_ref()
            .is_some_and(|c| Arc::ptr_eq(c, &config))
        {
            // A whole reload came between and has read the files itself.
            return;
        }
        good &= parts.serve(store, &config);
        drop(parts);
        metrics::get().certificates_ok.set(good.into());
        if good {
            log::info!("certificates reloaded");
        }
    }
}

impl Parts {
    fn serve(&mut self, store: Store, config: &Config) -> bool {
        self.store = store;
        let mut good = true;
        for listening in self.listeners.values() {
            if let Some(tls) = &listening.listener.tls
                && let Err(fault) = tls.reload(&listening.conf, &self.store, &config.dir)
            {
                log::error!(
                    "listener {}: {fault}; still serving the old certificates",
                    listening.conf.name
                );
                good = false;
            }
        }
        if let Some(ring) = &self.ring
            && let Err(fault) = ring.reload(config)
        {
            log::error!("session tickets: {fault}; still using the old keys");
            good = false;
        }
        good
    }
}

/// Reloads changed files, rotates the ticket keys and asks OCSP responders, until the process ends.
pub async fn watch(running: Arc<Running>) {
    let mut marks = Marks::default();
    let asking = Arc::new(Semaphore::new(MAX_ASKING));
    // Changes are detected from the files just loaded.
    if let Some(config) = running.parts().config.clone() {
        marks.have_changed(&config);
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let config = running.parts().config.clone();
        let Some(config) = config else { continue };
        if marks.have_changed(&config) {
            let running = running.clone();
            // Reading files and keys blocks.
            let _ = tokio::task::spawn_blocking(move || running.refresh_certificates()).await;
        }
        if let Some(ring) = &running.parts().ring {
            ring.rotate(Instant::now());
        }
        ask_responders(&running, &asking);
    }
}

/// Asks the OCSP responders that are due. Those beyond [`MAX_ASKING`] are asked at the next check.
fn ask_responders(running: &Arc<Running>, asking: &Arc<Semaphore>) {
    let now = unix_now();
    let due: Vec<(String, Arc<Staple>)> = {
        let parts = running.parts();
        let all = parts.store.iter();
        all.filter(|(_, loaded)| loaded.staple.is_due(now))
            .map(|(name, loaded)| (name.clone(), loaded.staple.clone()))
            .collect()
    };
    for (name, staple) in due {
        let Some(asks) = staple.asks.clone() else {
            continue;
        };
        let Ok(turn) = asking.clone().try_acquire_owned() else {
            return;
        };
        staple.asking(now);
        tokio::spawn(async move {
            let answer = ask(&asks).await;
            drop(turn);
            let result = staple.answered(answer, unix_now());
            let word = if result.is_ok() { "good" } else { "bad" };
            metrics::get().ocsp.with_label_values(&[&name, word]).inc();
            if let Err(why) = result {
                log::warn!("certificate {name}: {}: {why}", asks.url);
            }
        });
    }
}

/// State of a file: time of change, length, inode; `None`: it does not exist.
type Mark = Option<(i64, i64, u64, u64)>;

/// State of each file at the last check.
#[derive(Default)]
struct Marks(BTreeMap<PathBuf, Mark>);

impl Marks {
    /// Whether a file of the last check has changed since. A file that a new configuration
    /// adds does not count: the reload has read it.
    fn have_changed(&mut self, config: &Config) -> bool {
        let mark = |path: &PathBuf| -> Mark {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
        };
        let files = files(config).into_iter();
        let fresh: BTreeMap<_, _> = files.map(|path| (path.clone(), mark(&path))).collect();
        let changed = fresh
            .iter()
            .any(|(path, mark)| self.0.get(path).is_some_and(|old| old != mark));
        self.0 = fresh;
        changed
    }
}

fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for c in config.certificates.values() {
        let own = [&c.chain, &c.key, &c.keystore, &c.password_file];
        files.extend(own.into_iter().flatten().cloned());
        if let Ocsp::File(file) = &c.ocsp {
            files.push(file.clone());
        }
    }
    let listeners = config.listeners.iter().filter_map(|l| l.tls.as_ref());
    files.extend(listeners.filter_map(|tls| tls.client_ca.clone()));
    files.extend(config.tickets.file.clone());
    files.into_iter().map(|f| config.dir.join(f)).collect()
}
