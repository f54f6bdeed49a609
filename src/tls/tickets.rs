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
    since: Instant,
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
            }),
        };
        match &config.tickets.file {
            Some(file) => ring.keys.store(Arc::new(keys_of(&config.dir.join(file))?)),
            None => ring.push(0)?,
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
        ring.keys.store(Arc::new(keys));
        if let Some(since) = Instant::now().checked_sub(age) {
            ring.state.lock().since = since;
        }
        Ok(ring)
    }

    /// Serialises the ring for [`Ring::import`]: the age of the first key in seconds (8 bytes, big
    /// endian), then the keys, 80 bytes each. **Secret**: a reader of these bytes can decrypt sessions.
    /// They may pass through a Unix socket or a pipe, never through a file that others can read.
    pub fn export(&self) -> Vec<u8> {
        let state = self.state.lock();
        let age = state.since.elapsed().as_secs();
        let mut bytes = age.to_be_bytes().to_vec();
        for key in self.keys.load().iter() {
            bytes.extend_from_slice(&key.name);
            bytes.extend_from_slice(&key.hmac);
            bytes.extend_from_slice(&key.aes);
        }
        bytes
    }

    /// Applies a changed `tickets:` section or a changed file.
    ///
    /// Errors: as [`Ring::new`]; the old keys stay.
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        self.take_over(NewTickets::read(config)?);
        Ok(())
    }

    /// Takes over keys that were read.
    pub fn take_over(&self, new: NewTickets) {
        let mut state = self.state.lock();
        if let Some(keys) = new.keys {
            self.keys.store(Arc::new(keys));
        }
        state.conf = new.conf;
    }

    /// Puts a new key in front if the first is older than `tickets.rotate`, and drops the oldest. Does
    /// nothing if the keys come from a file: its writer rotates them.
    pub fn rotate(&self, now: Instant) {
        let mut state = self.state.lock();
        let age = now.saturating_duration_since(state.since);
        if state.conf.file.is_some() || age < state.conf.rotate.0 {
            return;
        }
        match self.push(state.conf.keep) {
            Ok(()) => state.since = now,
            Err(fault) => {
                log::error!("cannot rotate session ticket keys, the old keys stay: {fault}")
            }
        }
    }

    fn push(&self, keep: usize) -> Result<(), TlsError> {
        let key = Key::random().map_err(|e| TlsError::Refused {
            certificate: "session tickets".into(),
            why: e.to_string(),
        })?;
        let old = self.keys.load();
        let keys = std::iter::once(key).chain(old.iter().take(keep).cloned());
        self.keys.store(Arc::new(keys.collect()));
        Ok(())
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

/// A `tickets:` section with the keys of its file, not in force yet.
pub struct NewTickets {
    conf: Tickets,
    keys: Option<Vec<Key>>,
}

impl NewTickets {
    /// Reads the keys that `config` wants.
    ///
    /// Errors: as [`Ring::new`].
    pub fn read(config: &Config) -> Result<NewTickets, TlsError> {
        let file = config.tickets.file.as_ref();
        let keys = file.map(|file| keys_of(&config.dir.join(file)));
        Ok(NewTickets {
            conf: config.tickets.clone(),
            keys: keys.transpose()?,
        })
    }
}

fn imported(exported: &[u8]) -> Option<(Duration, Vec<Key>)> {
    let (age, keys) = exported.split_first_chunk::<8>()?;
    let (keys, rest) = keys.as_chunks::<KEY_BYTES>();
    let whole = rest.is_empty() && (1..=MAX_KEYS).contains(&keys.len());
    let age = Duration::from_secs(u64::from_be_bytes(*age));
    whole.then(|| (age, keys.iter().map(Key::of).collect()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::units::Span;
    use crate::credentials::ticket_keys::{HALF, NAME};

    fn config(dir: &Path, keep: usize, file: Option<&str>) -> Config {
        let mut config: Config = serde_yaml::from_str("listeners: []").unwrap();
        config.dir = dir.to_owned();
        config.tickets = Tickets {
            rotate: Span(Duration::from_secs(60)),
            keep,
            file: file.map(Into::into),
        };
        config
    }

    /// Aim: an old key opens tickets for `keep` rotations, marked as old, and is then dropped.
    /// Source: FAULTS D34. Fails if a rotation drops the key that has just sealed.
    #[test]
    fn rotation_overlaps() {
        let ring = Ring::new(&config(Path::new(""), 2, None)).unwrap();
        let first = ring.seal().unwrap();
        let start = Instant::now();
        for (minutes, expected) in [
            (0, Some(true)),
            (1, Some(false)),
            (2, Some(false)),
            (3, None),
        ] {
            ring.rotate(start + Duration::from_secs(60 * minutes + 1));
            let found = ring.open(&first.name).map(|(_, seals)| seals);
            assert_eq!(found, expected, "after {minutes} rotations");
        }
    }

    /// Aim: a process that takes over opens its predecessor's tickets, and rotates keys when the
    /// predecessor would have. It refuses a truncated ring. Fails if `export` leaves out a key or the age.
    #[test]
    fn a_ring_is_handed_over() {
        let config = config(Path::new(""), 2, None);
        let old = Ring::new(&config).unwrap();
        let first = old.seal().unwrap();
        old.rotate(Instant::now() + Duration::from_secs(61));
        let bytes = old.export();
        let new = Ring::import(&config, &bytes).unwrap();
        assert!(new.seal() == old.seal() && new.export()[8..] == bytes[8..]);
        assert!(new.open(&first.name).is_some_and(|(_, seals)| !seals));
        let mut aged = bytes.clone();
        aged[..8].copy_from_slice(&59u64.to_be_bytes());
        let aged = Ring::import(&config, &aged).unwrap();
        aged.rotate(Instant::now());
        assert!(aged.seal() == old.seal(), "59 s are no minute");
        aged.rotate(Instant::now() + Duration::from_secs(2));
        assert!(aged.seal() != old.seal());
        for cut in [0, 7, 8, 8 + KEY_BYTES - 1, bytes.len() - 1] {
            assert!(Ring::import(&config, &bytes[..cut]).is_err(), "{cut} bytes");
        }
    }

    /// Aim: the first key of a file seals and all its keys open. The error of a bad file names the line,
    /// and the keys do not change.
    #[test]
    fn files_are_rings() {
        let dir = tempfile::tempdir().unwrap();
        let hex = |byte: u8| format!("{byte:02x}").repeat(KEY_BYTES);
        let base64 = openssl::base64::encode_block(&[7; KEY_BYTES]);
        let write = |text: &str| std::fs::write(dir.path().join("keys"), text).unwrap();
        write(&format!("# ours\n{}\n\n{base64}\n", hex(1)));
        let config = config(dir.path(), 0, Some("keys"));
        let ring = Ring::new(&config).unwrap();
        assert_eq!(ring.seal().unwrap().aes, [1; HALF]);
        assert!(ring.open(&[7; NAME]).is_some_and(|(_, seals)| !seals));
        ring.rotate(Instant::now() + Duration::from_secs(3600));
        assert_eq!(
            ring.seal().unwrap().aes,
            [1; HALF],
            "keys of a file are not rotated"
        );
        for (text, expected) in [
            ("", "expected at least one ticket key"),
            ("abc", "line 1: expected a ticket key of 80 bytes"),
            (
                &format!("{0}\n{0}", hex(2)),
                "line 2: an earlier line has a key with the same first 16 bytes",
            ),
        ] {
            write(text);
            let fault = ring.reload(&config).unwrap_err().to_string();
            assert!(fault.contains(expected), "{fault}");
            assert_eq!(ring.seal().unwrap().aes, [1; HALF]);
        }
        write(&hex(9));
        ring.reload(&config).unwrap();
        assert_eq!(ring.seal().unwrap().aes, [9; HALF]);
    }

    /// Aim: a reload that names a file wins over a rotation of the same moment. Fails, within some 100 rounds,
    /// if `reload` stores the keys of the file without the lock that `rotate` holds.
    #[test]
    fn a_rotation_does_not_undo_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let key = "09".repeat(KEY_BYTES);
        std::fs::write(dir.path().join("keys"), key).unwrap();
        let (random, file) = (
            config(dir.path(), 2, None),
            config(dir.path(), 2, Some("keys")),
        );
        for round in 0..500 {
            let ring = Ring::new(&random).unwrap();
            let start = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    for minute in 1..20 {
                        ring.rotate(Instant::now() + Duration::from_secs(61 * minute));
                    }
                });
                start.wait();
                ring.reload(&file).unwrap();
            });
            assert_eq!(ring.seal().unwrap().aes, [9; HALF], "round {round}");
        }
    }
}
