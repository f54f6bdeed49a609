//! Keeps certificates, ticket keys and OCSP responses fresh while the edge runs.
//!
//! In: changes of the files, time, answers of OCSP responders. Out: listeners that serve the new
//! ones; what cannot be read leaves the old one serving. Source: FAULTS D36; RFC 6960 §A.1.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Running;
use super::parts::Parts;
use crate::config::{Config, Ocsp};
use crate::observe::metrics;
use crate::tls::ocsp::{Staple, ask};
use crate::tls::{Store, unix_now};

/// Period of looking at the files: a renewed certificate is served within two of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most questions to OCSP responders at once: thousands of certificates often have one responder.
const MAX_ASKING: usize = 16;

/// A certificate as the admin endpoint shows it.
pub struct Shown {
    /// Name in the configuration.
    pub name: String,
    /// Host names it covers.
    pub names: Vec<String>,
    /// Kind of its key.
    pub key: &'static str,
    /// Its end, in seconds since 1970.
    pub not_after: i64,
    /// Whole days until then.
    pub days_left: i64,
    /// Listeners that may serve it.
    pub listeners: Vec<String>,
    /// Whether its chain leads to a root.
    pub complete: bool,
    /// Whether an OCSP response is sent along.
    pub stapled: bool,
}

impl Running {
    /// All certificates, by name.
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

    /// Reads certificates and ticket keys again; live connections keep what they have. What cannot
    /// be read leaves the old one serving, with a line in the log and a metric.
    pub fn refresh_certificates(&self) {
        let (config, old) = {
            let parts = self.parts();
            let Some(config) = parts.config.clone() else {
                return;
            };
            (config, parts.store.clone())
        };
        // Without the lock: reading thousands of files takes its time.
        let (store, faults) = old.refreshed(&config);
        let mut good = faults.is_empty();
        for (name, fault) in &faults {
            log::error!("certificate {name}: {fault}; the old one stays");
        }
        let mut parts = self.parts();
        if !parts
            .config
            .as_ref()
            .is_some_and(|c| Arc::ptr_eq(c, &config))
        {
            // A whole reload came between; it has read the files itself.
            return;
        }
        good &= parts.serve(store, &config);
        drop(parts);
        metrics::get().certificates_ok.set(good.into());
        if good {
            log::info!("certificates loaded again");
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
                log::error!("listener {}: {fault}", listening.conf.name);
                good = false;
            }
        }
        if let Some(ring) = &self.ring
            && let Err(fault) = ring.reload(config)
        {
            log::error!("session tickets: {fault}; the old keys stay");
            good = false;
        }
        good
    }
}

/// Looks at the files, turns the ticket keys and asks the responders, until the process ends.
pub async fn watch(running: Arc<Running>) {
    let mut marks = Marks::default();
    let asking = Arc::new(Semaphore::new(MAX_ASKING));
    // What was just loaded is what changes are told from.
    if let Some(config) = running.parts().config.clone() {
        marks.have_changed(&config);
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let config = running.parts().config.clone();
        let Some(config) = config else { continue };
        if marks.have_changed(&config) {
            let running = running.clone();
            // Files and keys are read by blocking calls.
            let _ = tokio::task::spawn_blocking(move || running.refresh_certificates()).await;
        }
        if let Some(ring) = &running.parts().ring {
            ring.rotate(Instant::now());
        }
        ask_responders(&running, &asking);
    }
}

/// Asks the responders whose time it is; those beyond [`MAX_ASKING`] at the next look.
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

/// What a file looked like: changed, length, inode. A file that is not there is none.
type Mark = Option<(i64, i64, u64, u64)>;

/// What all files looked like.
#[derive(Default)]
struct Marks(BTreeMap<PathBuf, Mark>);

impl Marks {
    /// Whether a file that was there before has changed since the last look. A configuration that
    /// names other files has read them itself.
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
