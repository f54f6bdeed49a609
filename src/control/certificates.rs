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

use super::parts::Parts;
use super::{Running, node_tls};
use crate::config::{Config, Ocsp};
use crate::credentials::ocsp::{Staple, ask};
use crate::credentials::{Warning, unix_now};
use crate::observe::metrics;
use crate::tls::{Store, Which};

/// Period of checks for changed files: a renewed certificate is served within two periods.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most concurrent requests to OCSP responders: thousands of certificates often share one responder.
const MAX_ASKING: usize = 16;

/// A certificate as the admin endpoint shows it.
pub struct Shown {
    /// Name in the configuration.
    pub name: String,
    /// The key's name in its keystore.
    pub alias: Option<String>,
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
    /// What an operator should mend.
    pub warnings: Vec<Warning>,
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
            alias: loaded.alias.clone(),
            names: loaded.names.clone(),
            key: loaded.kind(),
            not_after: loaded.not_after(),
            days_left: loaded.days_left(now),
            listeners: serving(name),
            complete: loaded.complete,
            stapled: loaded.staple.response(now).is_some(),
            warnings: loaded.warnings(now),
        })
        .collect()
    }

    /// Reloads certificates and ticket keys; live connections keep theirs. If one cannot be read, the old one
    /// stays in use, a log line and a metric report it, and [`watch`] tries it again.
    pub fn refresh_certificates(&self) {
        self.refresh(Which::All);
    }

    fn refresh(&self, which: Which) {
        let (config, old) = {
            let parts = self.parts();
            let Some(config) = parts.config.clone() else {
                return;
            };
            (config, parts.store.clone())
        };
        // Without the lock, because reading thousands of files takes long.
        let store = old.refreshed(&config, which);
        let mut parts = self.parts();
        if !parts
            .config
            .as_ref()
            .is_some_and(|c| Arc::ptr_eq(c, &config))
        {
            // A whole reload came between and has read the files itself.
            return;
        }
        // A failure that lasts is told once, not each second.
        let mut failed = store.failed().clone();
        failed.retain(|name, fault| which == Which::All || old.failed().get(name) != Some(fault));
        // Contexts of thousands of names are not built each second for one file that stays bad.
        let mended = store.failed().len() < old.failed().len();
        if which == Which::All || mended || !parts.unserved.is_empty() {
            parts.serve(store, &config);
        } else {
            parts.store = store;
        }
        let good = parts.all_is_served();
        drop(parts);
        metrics::get().certificates_ok.set(good.into());
        for (name, fault) in failed {
            log::error!(
                "certificate {name}: {fault}; still serving the old one, trying again each second"
            );
        }
        if good && (which == Which::All || mended) {
            log::info!("certificates reloaded");
        }
    }
}

impl Parts {
    /// Whether the last load of every certificate, `client_ca` and ticket key was good.
    pub(super) fn all_is_served(&self) -> bool {
        self.store.failed().is_empty() && self.unserved.is_empty()
    }

    fn serve_again(&mut self) {
        if let Some(config) = self.config.clone() {
            self.serve(self.store.clone(), &config);
        }
    }

    fn serve(&mut self, store: Store, config: &Config) {
        self.store = store;
        let before = std::mem::take(&mut self.unserved);
        let mut failed = BTreeMap::new();
        for listening in self.listeners.values() {
            if let Some(tls) = &listening.listener.tls
                && let Err(fault) = tls.reload(&listening.conf, &self.store, &config.dir)
            {
                let who = format!("listener {}", listening.conf.name);
                failed.insert(who, format!("{fault}; still serving the old certificates"));
            }
        }
        for checked in self.nodes.values() {
            let Some(tls) = &checked.node.tls else {
                continue;
            };
            let who = format!("node {}", checked.node.name);
            match node_tls::secure(config, &checked.conf, &self.store) {
                Ok(Some(new)) if tls.is_same(&new) && tls.adopt(&new) => {
                    log::info!("{who}: TLS files reloaded");
                }
                Ok(_) => {}
                Err(fault) => {
                    let why = format!("{fault}; still using the old certificates");
                    failed.insert(who, why);
                }
            }
        }
        if let Some(ring) = &self.ring
            && let Err(fault) = ring.reload(config)
        {
            let why = format!("{fault}; still using the old keys");
            failed.insert("session tickets".into(), why);
        }
        for (who, why) in failed
            .iter()
            .filter(|(who, why)| before.get(*who) != Some(*why))
        {
            log::error!("{who}: {why}, trying again each second");
        }
        self.unserved = failed;
    }
}

/// Reloads changed files, tries those again that could not be loaded, rotates the ticket keys and asks OCSP
/// responders, until the process ends.
pub async fn watch(running: Arc<Running>) {
    let mut marks = Marks::default();
    let asking = Arc::new(Semaphore::new(MAX_ASKING));
    // Changes are detected from the files just loaded.
    if let Some(config) = running.parts().config.clone() {
        marks.have_changed(&config);
    }
    let mut in_time = running.parts().store.in_time(unix_now());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let config = running.parts().config.clone();
        let Some(config) = config else { continue };
        let which = match marks.have_changed(&config) {
            true => Some(Which::All),
            false => (!running.parts().all_is_served()).then_some(Which::Failed),
        };
        if let Some(which) = which {
            let running = running.clone();
            // Reading files and keys blocks.
            let _ = tokio::task::spawn_blocking(move || running.refresh(which)).await;
        }
        // A certificate has ended, or its time has begun: another one may be the better choice now.
        let now_in_time = running.parts().store.in_time(unix_now());
        if now_in_time != in_time {
            let running = running.clone();
            let _ = tokio::task::spawn_blocking(move || running.parts().serve_again()).await;
            in_time = now_in_time;
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

/// State of a file: time of the last change of its content, time of the last change of its content, owner or
/// mode, length, inode; `None`: it does not exist.
type Mark = Option<(i64, i64, i64, i64, u64, u64)>;

/// State of each file at the last check.
#[derive(Default)]
struct Marks(BTreeMap<PathBuf, Mark>);

impl Marks {
    /// Whether a file of the last check has changed since. A file that a new configuration
    /// adds does not count: the reload has read it.
    fn have_changed(&mut self, config: &Config) -> bool {
        let mark = |path: &PathBuf| -> Mark {
            let meta = std::fs::metadata(path).ok()?;
            let content = (meta.mtime(), meta.mtime_nsec());
            let any = (meta.ctime(), meta.ctime_nsec());
            Some((content.0, content.1, any.0, any.1, meta.len(), meta.ino()))
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

    /// Aim: a renewal hook that only mends the mode or owner of a file is noticed. Fails if the marks have
    /// no time of change of the inode (ctime).
    #[test]
    fn a_changed_mode_is_a_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let yaml = "certificates: { c: { chain: c.pem, key: c.pem } }\nlisteners: []";
        let mut config: Config = serde_yaml::from_str(yaml).expect("YAML");
        config.dir = dir.path().to_owned();
        let file = dir.path().join("c.pem");
        std::fs::write(&file, "x").expect("write");
        let mut marks = Marks::default();
        marks.have_changed(&config);
        assert!(!marks.have_changed(&config));
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("chmod");
        assert!(marks.have_changed(&config));
        assert!(!marks.have_changed(&config));
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
