//! Loads and checks all certificates, so that a fault shows at load and not at a client.
//!
//! In: the `certificates:` of a configuration. Out: [`Loaded`] certificates by name. The key of each
//! fits its leaf, and its chain is in order and valid now. Source: RFC 6125 §6.4 (only dNSName counts).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::credentials::{Certificate, Loaded, TlsError, unix_now};

/// Certificates by name. Each is read once, even if many listeners serve it.
#[derive(Clone, Default)]
pub struct Store(BTreeMap<String, Arc<Loaded>>);

impl Store {
    /// Loads every certificate of `config`.
    ///
    /// Errors: the first [`TlsError`].
    pub fn load(config: &Config) -> Result<Store, TlsError> {
        let all = config.certificates.iter();
        all.map(|(name, files)| {
            let loaded = Loaded::open(files, &config.dir)?;
            warn(name, files, &loaded);
            Ok((name.clone(), Arc::new(loaded)))
        })
        .collect::<Result<_, TlsError>>()
        .map(Store)
    }

    /// Loads every certificate again. Returns the new store, and the errors by certificate; a
    /// certificate with an error stays as it was.
    pub fn refreshed(&self, config: &Config) -> (Store, Vec<(String, TlsError)>) {
        let mut faults = Vec::new();
        let mut fresh = BTreeMap::new();
        for (name, files) in &config.certificates {
            match (Loaded::open(files, &config.dir), self.0.get(name)) {
                (Ok(loaded), old) => {
                    if let Some(old) = old {
                        loaded.staple.inherit(&old.staple);
                    }
                    warn(name, files, &loaded);
                    fresh.insert(name.clone(), Arc::new(loaded));
                }
                (Err(fault), old) => {
                    fresh.extend(old.map(|old| (name.clone(), old.clone())));
                    faults.push((name.clone(), fault));
                }
            }
        }
        (Store(fresh), faults)
    }

    /// Takes over the OCSP responses of certificates that have not changed.
    pub fn inherit(&self, old: &Store) {
        for (name, loaded) in &self.0 {
            if let Some(old) = old.get(name) {
                loaded.staple.inherit(&old.staple);
            }
        }
    }

    /// Returns the certificate called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Loaded>> {
        self.0.get(name)
    }

    /// Iterates over all certificates, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Loaded>)> {
        self.0.iter()
    }
}

/// Warns, at each load, of a certificate that expires soon or whose chain does not lead to a root.
fn warn(name: &str, files: &Certificate, loaded: &Loaded) {
    let left = loaded.days_left(unix_now());
    if left < i64::from(files.warn_days) {
        log::warn!(
            "certificate {name} expires in {left} days, on {}; renew it",
            loaded.leaf.not_after()
        );
    }
    if !loaded.complete {
        log::warn!(
            "certificate {name}: its chain does not lead to a root or an authority of this system, and \
             clients without the missing issuer refuse it; add the issuer to the chain"
        );
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
