//! Gets and renews the certificates of blocks `acme`, and has the listeners answer open challenges.
//!
//! In: the configuration, time, the state folders. Out: orders, at the dates that `acme::renewal` and `acme::pause`
//! give; the file of a certificate, which `certificates` then serves as any other that was renewed. While an
//! authority fails, the old certificate serves on.

mod look;
mod order;
pub mod progress;
mod reason;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;

use self::look::{Before, Looks};
use self::order::{Job, Outcome};
use self::progress::Progress;
use super::Running;
use super::file_thread::on_file_thread;
use crate::acme::{Folder, Proof, answer_all, fits, renewal};
use crate::config::{Acme, Challenge, Config};
use crate::credentials::{Issued, Mark, unix_now};
use crate::observe::metrics;

/// Period of looks at the state folders: an edge answers a challenge of another one within two periods.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a new challenge waits before the authority is told of it: each edge has looked by then. Doubled after each
/// failure, up to [`MAX_SPREAD`], because a network file system may show a new file only later.
const SPREAD: Duration = Duration::from_millis(1200);
/// A network file system shows a new file after this time, by default.
const MAX_SPREAD: Duration = Duration::from_secs(60);
/// Most orders at once of this edge, of one folder at one authority. An order takes seconds, and waits for both.
const MAX_ORDERS: usize = 4;

/// A certificate that the edge gets itself.
struct Kept {
    acme: Acme,
    challenge: Challenge,
    dir: PathBuf,
    file: PathBuf,
    folder: Folder,
    /// The file at the last look.
    mark: Option<Mark>,
    issued: Option<Issued>,
    /// Random number that spreads its renewal.
    part: f64,
    progress: Arc<Progress>,
}

impl Kept {
    fn of(config: &Config, name: &str, acme: &Acme) -> Option<Kept> {
        Some(Kept {
            challenge: config.challenge_of(acme)?,
            dir: config.dir.clone(),
            file: config.dir.join(acme.file()),
            folder: Folder::at(config.dir.join(&acme.state)),
            acme: acme.clone(),
            mark: None,
            issued: None,
            part: fastrand::f64(),
            progress: Arc::new(Progress::new(name)),
        })
    }

    fn is_same(&self, other: &Kept) -> bool {
        let facts = |one: &Kept| (one.challenge, one.dir.clone(), one.file.clone());
        self.acme == other.acme && facts(self) == facts(other)
    }

    /// Returns when another one is wanted, in seconds since 1970.
    fn wanted(&self) -> i64 {
        let fit = |one: &&Issued| fits(one, &self.acme.names(), self.acme.url());
        let good = self.issued.as_ref().filter(fit);
        good.map_or(0, |one| renewal(one, self.part))
    }

    /// Returns when it is ordered, in seconds since 1970.
    fn due(&self) -> i64 {
        self.progress.due(self.wanted(), self.issued.is_none())
    }

    fn job(&self) -> Job {
        let doubled = SPREAD.saturating_mul(1 << self.progress.failures().min(16));
        Job {
            acme: self.acme.clone(),
            challenge: self.challenge,
            file: self.file.clone(),
            seen: self.issued.clone(),
            folder: self.folder.clone(),
            dir: self.dir.clone(),
            spread: doubled.min(MAX_SPREAD),
            failures: self.progress.failures(),
            hurry: self.progress.is_hurried(),
            opened: Default::default(),
        }
    }
}

/// Everything that [`watch`] knows.
#[derive(Default)]
struct Watch {
    config: Option<Arc<Config>>,
    kept: BTreeMap<String, Kept>,
    looks: BTreeMap<Folder, Looks>,
    /// Turns of orders, by folder and authority: one that does not answer holds up its own orders only.
    turns: BTreeMap<(Folder, String), Arc<Semaphore>>,
    open: Vec<Proof>,
}

/// Orders and renews certificates, and keeps the answers to challenges, until the process ends.
pub async fn watch(running: Arc<Running>) {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(config) = running.parts().config.clone() else {
            continue;
        };
        let changed = watch.settle(&config);
        if !changed && watch.kept.is_empty() && watch.open.is_empty() {
            continue;
        }
        watch.look().await;
        watch.show(&running);
        // A process that drains goes on answering challenges. Its successor orders, perhaps by another configuration.
        if !running.stopping.load(Ordering::SeqCst) && !*running.drain.borrow() {
            watch.begin();
        }
    }
}

impl Watch {
    /// Follows a reload. What failed is tried again soon: the operator may have mended it. Returns whether the
    /// configuration is a new one.
    fn settle(&mut self, config: &Arc<Config>) -> bool {
        let same = |last: &Arc<Config>| Arc::ptr_eq(last, config);
        if self.config.as_ref().is_some_and(same) {
            return false;
        }
        // A process that crashes again and again asks for nothing by its starts.
        let is_reload = self.config.replace(config.clone()).is_some();
        self.turns
            .retain(|_, turns| turns.available_permits() < MAX_ORDERS);
        let mut before = std::mem::take(&mut self.kept);
        for (name, certificate) in &config.certificates {
            let block = certificate.acme.as_ref();
            let Some(new) = block.and_then(|acme| Kept::of(config, name, acme)) else {
                continue;
            };
            let old = before.remove(name).filter(|old| old.is_same(&new));
            let kept = old.unwrap_or(new);
            if is_reload {
                kept.progress.hurry();
            }
            self.kept.insert(name.clone(), kept);
        }
        for (_, gone) in before
            .iter()
            .filter(|(name, _)| !self.kept.contains_key(*name))
        {
            gone.progress.remove();
        }
        true
    }

    /// Looks at the files and open challenges of all state folders.
    async fn look(&mut self) {
        let mut folders: BTreeMap<Folder, Vec<Before>> = BTreeMap::new();
        for (name, kept) in &self.kept {
            folders
                .entry(kept.folder.clone())
                .or_default()
                .push(Before {
                    name: name.clone(),
                    file: kept.file.clone(),
                    mark: kept.mark,
                });
        }
        self.looks.retain(|folder, _| folders.contains_key(folder));
        for (folder, all) in folders {
            let looks = self.looks.entry(folder.clone()).or_default();
            for changed in looks.look(&folder, all).await {
                let kept = self.kept.get_mut(&changed.before.name);
                if let Some(kept) = kept.filter(|kept| kept.file == changed.before.file) {
                    kept.mark = Some(changed.mark);
                    kept.issued = changed.issued;
                    kept.part = fastrand::f64();
                }
            }
        }
        let open: Vec<Proof> = self.looks.values().flat_map(|l| l.open.clone()).collect();
        if self.open != open {
            let proofs = open.clone();
            // It makes a key for each.
            if on_file_thread(move || answer_all(&proofs)).await.is_ok() {
                self.open = open;
            }
        }
        let now = unix_now();
        for kept in self.kept.values().filter(|kept| kept.wanted() > now) {
            kept.progress.settled(kept.acme.url());
        }
    }

    /// Shows the state of all orders, in metrics and at the admin endpoint.
    fn show(&self, running: &Running) {
        let m = metrics::get();
        let now = unix_now();
        let state = |kept: &Kept| kept.progress.shown(kept.acme.url(), kept.due().max(now));
        let all = self
            .kept
            .iter()
            .map(|(name, kept)| (name.clone(), state(kept)));
        running.parts().orders_of_certificates = all.collect();
        for (name, kept) in &self.kept {
            let from = kept.issued.as_ref().map_or(0, |one| one.from);
            m.acme_issued.with_label_values(&[name]).set(from);
            m.acme_next
                .with_label_values(&[name])
                .set(kept.due().max(now));
            let failures = i64::from(kept.progress.failures());
            m.acme_failures.with_label_values(&[name]).set(failures);
        }
    }

    /// Begins the orders that are due. Those beyond [`MAX_ORDERS`] follow when one has ended.
    fn begin(&mut self) {
        let now = unix_now();
        for kept in self.kept.values().filter(|kept| kept.due() <= now) {
            if !self.looks.get(&kept.folder).is_some_and(|l| l.answers) {
                continue;
            }
            let place = (kept.folder.clone(), kept.acme.url().to_owned());
            let turns = self.turns.entry(place);
            let turns = turns.or_insert_with(|| Arc::new(Semaphore::new(MAX_ORDERS)));
            let Ok(turn) = turns.clone().try_acquire_owned() else {
                continue;
            };
            if !kept.progress.begin() {
                continue;
            }
            let (job, progress) = (Arc::new(kept.job()), kept.progress.clone());
            let old = kept.issued.as_ref().map(|one| one.until);
            tokio::spawn(async move {
                let result = order::run(job.clone()).await;
                drop(turn);
                let url = job.acme.url();
                match result {
                    Ok(Outcome::Got(issued, by_another)) => progress.got(url, &issued, by_another),
                    Ok(Outcome::Busy) => progress.busy(),
                    Ok(Outcome::Resting(series, rest)) => progress.rests(url, series, rest, old),
                    Err(series) => progress.failed(url, series, old),
                }
            });
        }
    }
}
