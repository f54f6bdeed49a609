//! Keeps certificates, ticket keys and OCSP responses fresh while the edge runs.
//!
//! In: changes of the files, time, answers of OCSP responders. Out: listeners that serve the new ones. If a
//! file cannot be read, the old certificate or key stays in use. Source: FAULTS D36; RFC 6960 §A.1.

mod fresh;
mod marks;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use self::fresh::{Fresh, Serving};
use self::marks::{Marks, certificates_of};
use super::Running;
use super::acme::progress::OrderState;
use super::parts::Parts;
use crate::config::Config;
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
    /// Its orders, if the edge gets it itself.
    pub acme: Option<OrderState>,
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
            acme: parts.orders_of_certificates.get(name).cloned(),
        })
        .collect()
    }

    /// Reads certificates and ticket keys again; live connections keep theirs. If one cannot be read, the old one
    /// stays in use, a log line and a metric report it, and [`watch`] tries it again. Whatever needs a file in
    /// `hung` stays as it is: the file does not answer. Takes long, so it runs on a file thread.
    fn refresh(&self, which: Which, hung: &BTreeSet<PathBuf>) {
        let turn = self.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        let (config, old, serving, all_served) = {
            let parts = self.parts();
            let Some(config) = parts.config.clone() else {
                return;
            };
            let all_served = parts.unserved.is_empty();
            (config, parts.store.clone(), Serving::of(&parts), all_served)
        };
        let store = old.refreshed(&config, which, &certificates_of(hung, &config));
        // A failure that lasts is told once, not each second.
        let mut failed = store.failed().clone();
        failed.retain(|name, fault| which == Which::All || old.failed().get(name) != Some(fault));
        // Contexts of thousands of names are not built each second for one file that stays bad.
        let mended = store.failed().len() < old.failed().len();
        let serves = which == Which::All || mended || !all_served;
        let fresh = serves.then(|| serving.read(&config, &store, hung));
        let Some(good) = self.serve(turn, &config, store, fresh) else {
            return;
        };
        for (name, fault) in failed {
            log::error!(
                "certificate {name}: {fault}; still serving the old one, trying again each second"
            );
        }
        if good && (which == Which::All || mended) {
            log::info!("certificates reloaded");
        }
    }

    /// Serves the certificates of the store anew, because the time of one has begun or ended.
    fn serve_again(&self, hung: &BTreeSet<PathBuf>) {
        let turn = self.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        let (config, store, serving) = {
            let parts = self.parts();
            let Some(config) = parts.config.clone() else {
                return;
            };
            (config, parts.store.clone(), Serving::of(&parts))
        };
        let fresh = serving.read(&config, &store, hung);
        self.serve(turn, &config, store, Some(fresh));
    }

    /// Puts in force what refresh number `turn` has read for `config`. Returns whether all of it is good; `None`:
    /// a later refresh, which did not wait for a file that hung, or a whole reload came between.
    fn serve(
        &self,
        turn: u64,
        config: &Arc<Config>,
        store: Store,
        fresh: Option<Fresh>,
    ) -> Option<bool> {
        let mut parts = self.parts();
        let same = |c: &Arc<Config>| Arc::ptr_eq(c, config);
        let is_last = self.refreshes.load(Ordering::SeqCst) == turn;
        if !is_last || !parts.config.as_ref().is_some_and(same) {
            return None;
        }
        let old = std::mem::replace(&mut parts.store, store);
        let replaced = fresh.map(|fresh| fresh.serve(&mut parts));
        let good = parts.all_is_served();
        metrics::get().certificates_ok.set(good.into());
        // To free thousands of certificates takes long, so the lock is not held meanwhile.
        drop(parts);
        drop((old, replaced));
        Some(good)
    }
}

impl Parts {
    /// Whether the last load of every certificate, `client_ca` and ticket key was good.
    pub(super) fn all_is_served(&self) -> bool {
        self.store.failed().is_empty() && self.unserved.is_empty()
    }
}

/// Reloads changed files, tries those again that could not be loaded, rotates the ticket keys and asks OCSP
/// responders, until the process ends.
pub async fn watch(running: Arc<Running>) {
    let asking = Arc::new(Semaphore::new(MAX_ASKING));
    tokio::spawn(watch_files(running.clone()));
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(ring) = &running.parts().ring {
            ring.rotate(Instant::now());
        }
        ask_responders(&running, &asking);
    }
}

async fn watch_files(running: Arc<Running>) {
    let mut marks = Marks::default();
    let mut in_time = running.parts().store.in_time(unix_now());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let loaded = {
            let parts = running.parts();
            parts.config.clone().zip(parts.loaded)
        };
        let Some((config, loaded)) = loaded else {
            continue;
        };
        let changed = marks.have_changed(&config, loaded).await;
        let which = match changed | running.must_refresh.swap(false, Ordering::SeqCst) {
            true => Some(Which::All),
            false => (!running.parts().all_is_served()).then_some(Which::Failed),
        };
        if let Some(which) = which {
            let (reads, hung) = (running.clone(), marks.hung_files());
            let ended = marks.run(move || reads.refresh(which, &hung)).await;
            again_unless(&running, "read certificates", ended);
        }
        // A certificate has ended, or its time has begun: another one may be the better choice now.
        let now_in_time = running.parts().store.in_time(unix_now());
        if now_in_time != in_time {
            let (reads, hung) = (running.clone(), marks.hung_files());
            let ended = marks.run(move || reads.serve_again(&hung)).await;
            again_unless(&running, "serve certificates", ended);
            in_time = now_in_time;
        }
    }
}

/// Has all files read at the next look, without the one that hangs, unless the work has `ended`.
fn again_unless(running: &Running, what: &str, ended: Result<bool, String>) {
    match ended {
        Ok(true) => {}
        Ok(false) => running.must_refresh.store(true, Ordering::SeqCst),
        Err(why) => log::error!("cannot {what}: {why}"),
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
