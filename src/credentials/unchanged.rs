//! Reads the files of a certificate again only if they may have changed.
//!
//! In: blocks of certificates. Out: what was loaded before, or is loaded now. A reload of 5,000 certificates of which
//! one is new reads one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use super::loaded::{Loaded, unix_now};
use super::mark::Marks;
use super::{Certificate, TlsError};

type Key = (PathBuf, Certificate);

static LOADED: LazyLock<Mutex<HashMap<Key, Weak<Loaded>>>> = LazyLock::new(Mutex::default);

/// Returns `certificate` as it was loaded before, if somebody still holds it, its files have not changed, and its
/// chain is in time and had nothing to mend. Keystores, certificates with a responder and files that changed in the
/// last seconds are read each time. Relative paths are below `dir`.
pub fn unchanged(certificate: &Certificate, dir: &Path) -> Option<Arc<Loaded>> {
    let key = (dir.to_owned(), certificate.clone());
    let known = LOADED.lock().get(&key).and_then(Weak::upgrade)?;
    let same = known.marks.as_ref().is_some_and(Marks::hold);
    // An issuer that is over can change the order of the chain.
    (same && known.is_in_time_whole(unix_now())).then_some(known)
}

/// As [`Loaded::open`], without reading files that are [`unchanged`].
pub fn open(certificate: &Certificate, dir: &Path) -> Result<Arc<Loaded>, TlsError> {
    if let Some(known) = unchanged(certificate, dir) {
        return Ok(known);
    }
    let loaded = Arc::new(Loaded::open(certificate, dir)?);
    if loaded.marks.is_some() {
        let mut all = LOADED.lock();
        // Only when it is full, so that most calls look at nothing.
        if all.len() == all.capacity() {
            all.retain(|_, one| one.strong_count() > 0);
        }
        let key = (dir.to_owned(), certificate.clone());
        all.insert(key, Arc::downgrade(&loaded));
    }
    Ok(loaded)
}
