//! Keeps the keys that encrypt session tickets: one ring for all listeners, rotated by time or read
//! from a file that several edges share.
//!
//! In: `tickets:` and the time. Out: a ring. Its first key seals (encrypts and signs) new tickets, and all
//! its keys open tickets. A ticket of an older key is opened and renewed.
//! Source: RFC 5077 §4, §5.5; RFC 8446 §4.6.1; FAULTS D34.

mod seal;

pub(super) use seal::install;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::defaults::TICKET_LIFETIME;
use crate::config::{Config, Tickets};
use crate::credentials::TlsError;
use crate::credentials::ticket_keys::{KEY_BYTES, Key, MAX_KEYS, keys_of};

/// The keys of session tickets. The first key seals, and all keys open.
pub struct Ring {
    /// Written with `state` locked, so that a rotation does not undo a reload.
    keys: ArcSwap<Vec<Key>>,
    state: Mutex<State>,
}

struct State {
    conf: Tickets,
    /// Since when the first key seals.
    since: Instant,
    /// When each of the other keys sealed its last ticket; empty if the keys come from a file.
    retired: Vec<Instant>,
}

impl Ring {
    /// Makes the ring of `config`, from its file or with a random key.
    ///
    /// Errors: the file cannot be read or is malformed.
    pub fn new(config: &Config) -> Result<Arc<Ring>, TlsError> {
        let ring = Ring {
            keys: ArcSwap::default(),
            state: Mutex::new(State {
                conf: config.tickets.clone(),
                since: Instant::now(),
                retired: Vec::new(),
            }),
        };
        match &config.tickets.file {
            Some(file) => ring.keys.store(Arc::new(keys_of(&config.dir.join(file))?)),
            None => ring.keys.store(Arc::new(vec![fresh()?])),
        }
        Ok(Arc::new(ring))
    }

    /// Makes the ring of a process that takes over from another, with the keys and the age that the
    /// predecessor exported ([`Ring::export`]). Its tickets stay valid, and the rotation continues.
    /// If `config` names a file, the keys of that file are used instead.
    ///
    /// Errors: as [`Ring::new`]; `exported` is malformed.
    pub fn import(config: &Config, exported: &[u8]) -> Result<Arc<Ring>, TlsError> {
        let ring = Ring::new(config)?;
        if config.tickets.file.is_some() {
            return Ok(ring);
        }
        let (age, keys) = imported(exported).ok_or_else(|| TlsError::Malformed {
            path: "session ticket keys of the predecessor".into(),
            why: "expected the age of the first key and 1 to 16 keys".into(),
        })?;
        let now = Instant::now();
        let since = now.checked_sub(age).unwrap_or(now);
        let rotate = config.tickets.rotate.0;
        // The age of the first key is the time since the second one sealed; each sealed for one period.
        let retired = |i: usize| since.checked_sub(rotate.saturating_mul(i as u32));
        let mut state = ring.state.lock();
        state.since = since;
        state.retired = (0..keys.len() - 1)
            .map(|i| retired(i).unwrap_or(since))
            .collect();
        ring.keys.store(Arc::new(keys));
        drop(state);
        Ok(ring)
    }

    /// Serialises the ring for [`Ring::import`]: the age of the first key in seconds (8 bytes, big
    /// endian), then the keys, 80 bytes each; instead of the keys of a file a new one. **Secret**: a reader of
    /// these bytes can decrypt sessions. They may pass through a Unix socket or a pipe, never through a file
    /// that others can read.
    pub fn export(&self) -> Vec<u8> {
        let state = self.state.lock();
        let (age, keys) = match state.conf.file {
            // A successor reads the file itself. If it names no file, the keys had to go.
            Some(_) => (0, fresh().into_iter().collect()),
            None => (state.since.elapsed().as_secs(), self.keys.load().to_vec()),
        };
        let mut bytes = age.to_be_bytes().to_vec();
        for key in &keys {
            bytes.extend_from_slice(&key.name);
            bytes.extend_from_slice(&key.hmac);
            bytes.extend_from_slice(&key.aes);
        }
        bytes
    }

    /// Applies a changed `tickets:` section or a changed file. If `file` is no longer named, its keys are
    /// dropped: whoever removed it may have had to.
    ///
    /// Errors: as [`Ring::new`]; the old keys stay.
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        self.take_over(NewTickets::read(config)?);
        Ok(())
    }

    /// Takes over keys that were read. If `file` is no longer named, its keys are dropped: whoever removed it may
    /// have had to.
    pub fn take_over(&self, new: NewTickets) {
        let mut state = self.state.lock();
        if new.conf.file.is_some() || state.conf.file.is_some() {
            self.keys.store(Arc::new(new.keys));
            state.retired.clear();
            state.since = Instant::now();
        }
        state.conf = new.conf;
    }

    /// Puts a new key in front if the first is older than `tickets.rotate`. Drops the oldest beyond
    /// `tickets.keep`, and those whose tickets are all over. Does nothing if the keys come from a file: its
    /// writer rotates them.
    pub fn rotate(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.conf.file.is_some() {
            return;
        }
        let mut keys = self.keys.load().to_vec();
        if now.saturating_duration_since(state.since) >= state.conf.rotate.0 {
            match fresh() {
                Ok(key) => {
                    keys.insert(0, key);
                    state.retired.insert(0, now);
                    state.since = now;
                }
                Err(fault) => {
                    log::error!("cannot rotate session ticket keys, the old keys stay: {fault}");
                }
            }
        }
        let over = |at: &Instant| now.saturating_duration_since(*at) >= TICKET_LIFETIME.0;
        let live = state.retired.iter().take_while(|at| !over(at)).count();
        let live = live.min(state.conf.keep);
        state.retired.truncate(live);
        keys.truncate(1 + live);
        if keys != **self.keys.load() {
            self.keys.store(Arc::new(keys));
        }
    }

    /// Returns the key that seals.
    pub(super) fn seal(&self) -> Option<Key> {
        self.keys.load().first().cloned()
    }

    /// Returns the key called `name`, and whether it is the key that seals.
    pub(super) fn open(&self, name: &[u8]) -> Option<(Key, bool)> {
        let keys = self.keys.load();
        let at = keys.iter().position(|key| key.name == name)?;
        keys.get(at).map(|key| (key.clone(), at == 0))
    }
}

/// A `tickets:` section with its keys, not in force yet.
pub struct NewTickets {
    conf: Tickets,
    /// The keys of the file; without a file a new key, in case that a file is no longer named.
    keys: Vec<Key>,
}

impl NewTickets {
    /// Reads the keys that `config` wants.
    ///
    /// Errors: as [`Ring::new`].
    pub fn read(config: &Config) -> Result<NewTickets, TlsError> {
        let keys = match &config.tickets.file {
            Some(file) => keys_of(&config.dir.join(file))?,
            None => vec![fresh()?],
        };
        Ok(NewTickets {
            conf: config.tickets.clone(),
            keys,
        })
    }
}

fn fresh() -> Result<Key, TlsError> {
    Key::random().map_err(|e| TlsError::Refused {
        certificate: "session tickets".into(),
        why: e.to_string(),
    })
}

fn imported(exported: &[u8]) -> Option<(Duration, Vec<Key>)> {
    let (age, keys) = exported.split_first_chunk::<8>()?;
    let (keys, rest) = keys.as_chunks::<KEY_BYTES>();
    let whole = rest.is_empty() && (1..=MAX_KEYS).contains(&keys.len());
    let age = Duration::from_secs(u64::from_be_bytes(*age));
    whole.then(|| (age, keys.iter().map(Key::of).collect()))
}

#[cfg(test)]
mod tests;
