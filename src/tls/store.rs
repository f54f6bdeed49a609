//! Holds all certificates of a configuration, and reads them again when their files change.
//!
//! In: the `certificates:` of a configuration. Out: [`Loaded`] certificates by name, and those that could not
//! be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::Config;
use crate::credentials::{Certificate, Loaded, TlsError, open, unix_now};

/// Certificates by name. Each is read once, even if many listeners serve it.
#[derive(Clone, Default)]
pub struct Store {
    loaded: BTreeMap<String, Arc<Loaded>>,
    /// Certificates whose last load failed; what is served under their names is older.
    failed: BTreeMap<String, String>,
}

/// Why a certificate was not read.
const HUNG: &str = "its file system does not answer";

/// Which certificates [`Store::refreshed`] reads again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// Those whose last load failed.
    Failed,
}

impl Store {
    /// Loads every certificate of `config`. A certificate that is not valid now does not replace a valid one
    /// of `old` for the same names; it is tried again.
    ///
    /// Errors: the first [`TlsError`].
    pub fn load(config: &Config, old: &Store) -> Result<Store, TlsError> {
        let mut store = Store::default();
        for (name, files) in &config.certificates {
            let loaded = open(files, &config.dir)?;
            store.take(name, files, loaded, old);
        }
        Ok(store)
    }

    /// Loads certificates again. One with an error stays as it was, and is in [`Store::failed`].
    /// Those in `hung` are not read: their files do not answer.
    pub fn refreshed(&self, config: &Config, which: Which, hung: &BTreeSet<String>) -> Store {
        let mut fresh = Store::default();
        for (name, files) in &config.certificates {
            let old = self.get(name);
            if hung.contains(name) && old.is_some() {
                fresh.keep(name, old, HUNG.to_owned());
                continue;
            }
            if let Some(old) = old
                && which == Which::Failed
                && !self.failed.contains_key(name)
            {
                fresh.loaded.insert(name.clone(), old.clone());
                continue;
            }
            match open(files, &config.dir) {
                Ok(loaded) => fresh.take(name, files, loaded, self),
                Err(fault) => fresh.keep(name, old, fault.to_string()),
            }
        }
        fresh
    }

    /// Takes `loaded` as the certificate called `name`, unless only its time is not right and the one in `old`
    /// still serves the same names. A placeholder replaces nothing that is valid, whatever its names: the certificate
    /// that it stands for will come.
    fn take(&mut self, name: &str, files: &Certificate, loaded: Arc<Loaded>, old: &Store) {
        let now = unix_now();
        let before = old.get(name);
        let serves = |old: &&Arc<Loaded>| {
            let same = old.names == loaded.names || loaded.is_placeholder;
            same && old.check_time(now).is_ok()
        };
        if let Err(fault) = loaded.check_time(now)
            && let Some(before) = before.filter(serves)
        {
            self.keep(name, Some(before), fault.to_string());
            return;
        }
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &loaded)) {
            for one in loaded.each() {
                before.each().for_each(|b| one.staple.inherit(&b.staple));
            }
        }
        warn(name, files, &loaded);
        self.loaded.insert(name.to_owned(), loaded);
    }

    fn keep(&mut self, name: &str, old: Option<&Arc<Loaded>>, fault: String) {
        let kept = old.map(|old| (name.to_owned(), old.clone()));
        self.loaded.extend(kept);
        self.failed.insert(name.to_owned(), fault);
    }

    /// Returns the certificates whose last load failed, with the error.
    pub fn failed(&self) -> &BTreeMap<String, String> {
        &self.failed
    }

    /// Returns the certificate called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Loaded>> {
        self.loaded.get(name)
    }

    /// Iterates over all certificates, sorted by name; of a keystore with several keys over each.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Loaded>)> {
        let all = self.loaded.iter();
        all.flat_map(|(name, loaded)| loaded.each().map(move |one| (name, one)))
    }

    /// Returns which certificates are valid at `now`. A change of the result changes what listeners serve.
    pub fn in_time(&self, now: i64) -> Vec<bool> {
        self.iter().map(|(_, one)| one.is_in_time(now)).collect()
    }
}

/// Returns the warning that the certificate `name`, of the block `files`, ends within its `warn_days` from `now`.
pub fn ends_soon(name: &str, files: &Certificate, one: &Loaded, now: i64) -> Option<String> {
    let left = one.days_left(now);
    // The edge renews it at two thirds of its life, which may be days.
    let is_renewed = files.acme.is_some() && !one.is_late(now);
    let soon = one.is_in_time(now) && left < i64::from(files.warn_days) && !is_renewed;
    soon.then(|| {
        let end = one.leaf.not_after();
        format!("certificate {name} expires in {left} days, on {end}; renew it")
    })
}

/// Warns, at each load, of whatever an operator should mend.
fn warn(name: &str, files: &Certificate, loaded: &Arc<Loaded>) {
    let now = unix_now();
    for one in loaded.each() {
        if let Some(warning) = ends_soon(name, files, one, now) {
            log::warn!("{warning}");
        }
        for warning in one.warnings(now) {
            log::warn!("certificate {name}: {warning}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Folder, Leaf};
    use super::*;

    /// Aim: `complete` is false for a chain without its issuer. Source: FAULTS D36.
    #[test]
    fn a_missing_issuer_is_seen() {
        let folder = Folder::new();
        let leaf = folder.issue("whole", &Leaf::of(&["a.example"]));
        folder.issue("bare", &Leaf::of(&["a.example"]));
        folder.write("bare.pem", &leaf.to_pem().unwrap());
        std::fs::copy(
            folder.dir.path().join("whole.key"),
            folder.dir.path().join("bare.key"),
        )
        .unwrap();
        for (word, complete) in [("whole", true), ("bare", false)] {
            let loaded = Loaded::open(&Folder::certificate(word), folder.dir.path());
            let loaded = loaded.unwrap_or_else(|e| panic!("{word}: {e}"));
            assert_eq!(loaded.complete, complete, "{word}");
        }
    }
}
