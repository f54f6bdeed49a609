//! Keeps certificates, ticket keys and OCSP responses fresh while the edge runs.
//!
//! In: changes of the files, time, answers of OCSP responders. Out: listeners that serve the new
//! ones; what cannot be read leaves the old one serving. Source: FAULTS D36; RFC 6960 §A.1.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Running;
use super::running::Parts;
use crate::config::{Config, Ocsp};
use crate::observe::metrics;
use crate::tls::Store;
use crate::tls::ocsp::{ASK_EVERY, RETRY_EVERY, Staple, ask};

/// Period of looking at the files: a renewed certificate is served within two of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Period of looking whether a staple is still good.
const JUDGE_EVERY: Duration = Duration::from_secs(60);

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
    /// Whether an OCSP response is sent along.
    pub stapled: bool,
}

impl Running {
    /// All certificates, by name.
    pub fn certificates(&self) -> Vec<Shown> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |d| d.as_secs() as i64);
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
            stapled: loaded.staple.response().is_some(),
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
    let mut judged = Instant::now();
    let mut asked = HashMap::new();
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
        let judge = judged.elapsed() >= JUDGE_EVERY;
        if judge {
            judged = Instant::now();
        }
        ask_responders(&running, judge, &mut asked);
    }
}

/// When each certificate's responder is asked next, by name and leaf.
type Asked = HashMap<(String, usize), Instant>;

fn ask_responders(running: &Arc<Running>, judge: bool, asked: &mut Asked) {
    let staples: Vec<(String, Arc<Staple>)> = {
        let parts = running.parts();
        let all = parts.store.iter();
        all.map(|(name, loaded)| (name.clone(), loaded.staple.clone()))
            .collect()
    };
    let mut next = Asked::new();
    for (name, staple) in staples {
        if judge {
            staple.expire();
        }
        let Some(asks) = staple.asks.clone() else {
            continue;
        };
        let key = (name.clone(), Arc::as_ptr(&staple) as usize);
        let now = Instant::now();
        let pause = match staple.response() {
            Some(_) => ASK_EVERY,
            None => RETRY_EVERY,
        };
        let due = match asked.get(&key) {
            Some(last) if now.duration_since(*last) < pause => {
                next.insert(key, *last);
                continue;
            }
            _ => now,
        };
        next.insert(key, due);
        tokio::spawn(async move {
            let result = match ask(&asks).await {
                Ok(response) => staple.take(response),
                Err(why) => Err(why),
            };
            let word = if result.is_ok() { "good" } else { "bad" };
            metrics::get().ocsp.with_label_values(&[&name, word]).inc();
            if let Err(why) = result {
                log::warn!("certificate {name}: {}: {why}", asks.url);
            }
        });
    }
    *asked = next;
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
