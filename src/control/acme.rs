//! Gets and renews the certificates of blocks `acme`, and has the listeners answer open challenges.
//!
//! In: the configuration, time, the state folders. Out: orders, at the dates that `acme::renewal` and `acme::pause`
//! give; the file of a certificate, which `certificates` then serves as any other that was renewed. While an
//! authority fails, the old certificate serves on.

mod order;
pub mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;

use self::order::{Job, Outcome};
use self::progress::Progress;
use super::Running;
use super::file_thread::on_file_thread;
use crate::acme::{Folder, Proof, answer_all, fits, renewal};
use crate::clock;
use crate::config::{Acme, Challenge, Config};
use crate::credentials::{Issued, Mark, unix_now};
use crate::observe::metrics;
use crate::observe::seldom::Seldom;

/// Period of looks at the state folders: an edge answers a challenge of another one within two periods.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a new challenge waits before the authority is told of it: each edge has looked by then. Doubled after each
/// failure, up to [`MAX_SPREAD`], because a network file system may show a new file only later.
const SPREAD: Duration = Duration::from_millis(1200);
/// A network file system shows a new file after this time, by default.
const MAX_SPREAD: Duration = Duration::from_secs(60);
/// Most orders at once of this edge. An order takes seconds, and waits for the network.
const MAX_ORDERS: usize = 4;
/// Looks fail twice a second, and always for the same reason.
static TOLD: Seldom = Seldom::new();

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

    /// Returns when it is ordered, in seconds since 1970.
    fn due(&self) -> i64 {
        let fit = |one: &&Issued| fits(one, &self.acme.names(), self.acme.url());
        let issued = self.issued.as_ref();
        let wanted = issued.filter(fit).map_or(0, |one| renewal(one, self.part));
        self.progress.due(wanted, issued.is_none())
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
            opened: Default::default(),
        }
    }
}

/// Everything that [`watch`] knows.
#[derive(Default)]
struct Watch {
    config: Option<Arc<Config>>,
    kept: BTreeMap<String, Kept>,
    open: Vec<Proof>,
}

/// Orders and renews certificates, and keeps the answers to challenges, until the process ends.
pub async fn watch(running: Arc<Running>) {
    let orders = Arc::new(Semaphore::new(MAX_ORDERS));
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
        if let Err(why) = watch.look().await {
            if TOLD.is_due() {
                log::error!("ACME: cannot look at the state folder: {why}");
            }
            continue;
        }
        watch.show(&running);
        if !running.stopping.load(Ordering::SeqCst) {
            watch.begin(&orders);
        }
    }
}

impl Watch {
    /// Follows a reload. What failed is tried again at once: the operator may have mended it. Returns whether the
    /// configuration is a new one.
    fn settle(&mut self, config: &Arc<Config>) -> bool {
        let same = |last: &Arc<Config>| Arc::ptr_eq(last, config);
        if self.config.as_ref().is_some_and(same) {
            return false;
        }
        self.config = Some(config.clone());
        let mut before = std::mem::take(&mut self.kept);
        for (name, certificate) in &config.certificates {
            let block = certificate.acme.as_ref();
            let Some(new) = block.and_then(|acme| Kept::of(config, name, acme)) else {
                continue;
            };
            let old = before.remove(name).filter(|old| old.is_same(&new));
            let kept = old.unwrap_or(new);
            kept.progress.retry_now();
            self.kept.insert(name.clone(), kept);
        }
        for name in before.keys().filter(|name| !self.kept.contains_key(*name)) {
            metrics::get().forget_acme(name);
        }
        true
    }

    /// Looks at the files and open challenges of all state folders.
    ///
    /// Errors: as [`on_file_thread`].
    async fn look(&mut self) -> Result<(), String> {
        let all = self.kept.iter();
        let files: Vec<_> = all
            .map(|(name, kept)| (name.clone(), kept.file.clone(), kept.mark))
            .collect();
        let folders: BTreeSet<_> = self.kept.values().map(|k| k.folder.clone()).collect();
        let now = clock::wall();
        let look = move || {
            let mut changed = Vec::new();
            for (name, file, before) in files {
                let mark = Mark::of(&file);
                if before != Some(mark) {
                    changed.push((name, mark, Issued::read(&file)));
                }
            }
            let open = folders.iter().flat_map(|folder| folder.challenges(now));
            (changed, open.collect::<Vec<_>>())
        };
        let (changed, open) = on_file_thread(look).await?;
        for (name, mark, issued) in changed {
            if let Some(kept) = self.kept.get_mut(&name) {
                kept.mark = Some(mark);
                kept.issued = issued;
                kept.part = fastrand::f64();
            }
        }
        if self.open != open {
            answer_all(&open);
            self.open = open;
        }
        Ok(())
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
    fn begin(&self, orders: &Arc<Semaphore>) {
        let now = unix_now();
        for kept in self.kept.values().filter(|kept| kept.due() <= now) {
            let Ok(turn) = orders.clone().try_acquire_owned() else {
                return;
            };
            if !kept.progress.begin() {
                continue;
            }
            let (job, progress) = (Arc::new(kept.job()), kept.progress.clone());
            let old = kept.issued.as_ref().map(|one| one.until);
            tokio::spawn(async move {
                let result = order::run(job.clone()).await;
                drop(turn);
                match result {
                    Ok(Outcome::Got(issued, by_another)) => {
                        progress.got(job.acme.url(), &issued, by_another);
                    }
                    Ok(Outcome::Busy) => progress.busy(),
                    Err(why) => {
                        let opened = job.opened.lock();
                        progress.failed(job.acme.url(), without_tokens(why, &opened), old);
                    }
                }
            });
        }
    }
}

/// Replaces the random words in a reason, so that a reason that lasts stays the same text.
fn without_tokens(mut why: String, opened: &[Proof]) -> String {
    for proof in opened {
        why = why.replace(&proof.token, "TOKEN");
    }
    why
}
