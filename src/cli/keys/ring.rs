//! The keys of a file with their states, which stand in comments above them.
//!
//! In: the file's text, the time, random bytes. Out: the text after a rotation. Readers of the edge skip the
//! comments: they sign with the first key, and verify with all.

use std::fmt;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use humantime::{format_rfc3339_seconds, parse_rfc3339};
use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::sha::sha256;
use pushgate_plugins::sticky_cookie;

use crate::config::defaults::TICKET_LIFETIME;
use crate::credentials::ticket_keys;

/// Bytes of a new cookie key, as the random key of an edge without a file has.
const COOKIE_KEY_BYTES: usize = 32;
/// How long an old cookie key verifies: the default of `max_age`.
const COOKIE_KEEP: Duration = Duration::from_secs(8 * 3600);
/// Bytes of a fingerprint: enough to tell the keys of a file apart, too few to be of use to a thief.
const FINGERPRINT: usize = 4;

/// The purpose of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `key_file` of `sticky_cookie`.
    Cookie,
    /// `file` of `tickets`.
    Tickets,
}

impl Kind {
    /// How long an old key is needed: as long as what it has signed is good.
    pub fn keep(self) -> Duration {
        match self {
            Kind::Cookie => COOKIE_KEEP,
            Kind::Tickets => TICKET_LIFETIME.0,
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Kind::Cookie => COOKIE_KEY_BYTES,
            Kind::Tickets => ticket_keys::KEY_BYTES,
        }
    }

    fn most_keys(self) -> usize {
        match self {
            Kind::Cookie => sticky_cookie::MAX_KEYS,
            Kind::Tickets => ticket_keys::MAX_KEYS,
        }
    }
}

/// The keys of a file. The first signs.
pub struct Ring {
    kind: Kind,
    keys: Vec<Key>,
}

struct Key {
    /// As it stands in the file.
    line: String,
    bytes: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Since then, if the file says it.
    Signs(Option<SystemTime>),
    /// Until then, if the file says it.
    Verifies(Option<SystemTime>),
    /// Verifies only, until the next rotation.
    Next,
}

/// The result of a rotation.
pub struct Turn {
    /// Until when the key verifies that has signed so far. `None`: it still signs, because there was no next one.
    pub old_until: Option<SystemTime>,
    /// Number of old keys that were removed.
    pub removed: usize,
}

impl Ring {
    /// Makes a ring of a key that signs and the next one. Errors: OpenSSL has no random bytes.
    pub fn new(kind: Kind, now: SystemTime) -> Result<Ring, ErrorStack> {
        let keys = vec![
            Key::random(kind, State::Signs(Some(now)))?,
            Key::random(kind, State::Next)?,
        ];
        Ok(Ring { kind, keys })
    }

    /// Reads the text of a file. Its keys are for tickets if all have the size of ticket keys. The caller checks
    /// the rest by the edge's own readers.
    ///
    /// Errors: a line that is no key, without the line itself, or no key at all.
    pub fn parse(text: &str) -> Result<Ring, String> {
        let mut keys: Vec<Key> = Vec::new();
        let mut above = None;
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                above = State::of(comment.trim()).or(above);
                continue;
            }
            if line.is_empty() {
                continue;
            }
            let bytes = sticky_cookie::key_of(line)
                .ok_or_else(|| format!("line {} is neither hexadecimal nor base64", n + 1))?;
            let state = match (above.take(), keys.is_empty()) {
                (Some(State::Signs(since)), true) => State::Signs(since),
                (_, true) => State::Signs(None),
                (Some(State::Signs(_)) | None, false) => State::Verifies(None),
                (Some(state), false) => state,
            };
            let line = line.to_owned();
            keys.push(Key { line, bytes, state });
        }
        let all_of_tickets = keys.iter().all(|k| k.bytes.len() == ticket_keys::KEY_BYTES);
        let kind = match (keys.is_empty(), all_of_tickets) {
            (true, _) => return Err("the file has no key".to_owned()),
            (_, true) => Kind::Tickets,
            (_, false) => Kind::Cookie,
        };
        Ok(Ring { kind, keys })
    }

    /// Returns the purpose of the keys.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Removes old keys whose time is over, lets the next key sign, keeps the old one for `keep`, and adds
    /// another next key. Without a next key only adds one.
    ///
    /// Errors: the file would have more keys than it may; OpenSSL has no random bytes.
    pub fn rotate(&mut self, now: SystemTime, keep: Duration) -> Result<Turn, String> {
        let until = now.checked_add(keep);
        let before = self.keys.len();
        self.keys.retain(|key| match key.state {
            State::Verifies(Some(until)) => until > now,
            _ => true,
        });
        let removed = before - self.keys.len();
        for key in &mut self.keys {
            if key.state == State::Verifies(None) {
                key.state = State::Verifies(until);
            }
        }
        let next = self.keys.iter().position(|key| key.state == State::Next);
        if let Some(next) = next {
            let mut key = self.keys.remove(next);
            key.state = State::Signs(Some(now));
            for old in &mut self.keys {
                if matches!(old.state, State::Signs(_)) {
                    old.state = State::Verifies(until);
                }
            }
            self.keys.insert(0, key);
        }
        let key = Key::random(self.kind, State::Next).map_err(|e| e.to_string())?;
        self.keys.push(key);
        let most = self.kind.most_keys();
        if self.keys.len() > most {
            return Err(self.too_many(most));
        }
        let old_until = next.and(until);
        Ok(Turn { old_until, removed })
    }

    fn too_many(&self, most: usize) -> String {
        let ends = self.keys.iter().filter_map(|key| match key.state {
            State::Verifies(until) => until,
            _ => None,
        });
        let when = ends.min().map(|until| {
            let until = format_rfc3339_seconds(until);
            format!("; an old key may be removed after {until}")
        });
        format!(
            "the file would have {} keys, at most {most} are allowed{}",
            self.keys.len(),
            when.unwrap_or_default()
        )
    }

    /// Returns a line for each key: its fingerprint and its state.
    pub fn table(&self) -> String {
        let line = |key: &Key| {
            let hash = sha256(&key.bytes);
            let print: String = hash[..FINGERPRINT]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            format!("{print}  {}\n", key.state)
        };
        self.keys.iter().map(line).collect()
    }
}

impl Key {
    fn random(kind: Kind, state: State) -> Result<Key, ErrorStack> {
        let mut bytes = vec![0; kind.key_bytes()];
        rand_bytes(&mut bytes)?;
        let line = bytes.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Key { line, bytes, state })
    }
}

impl State {
    /// Reads the comment above a key.
    fn of(comment: &str) -> Option<State> {
        let date = |text: &str| parse_rfc3339(text).ok();
        if let Some(since) = comment.strip_prefix("signs since ") {
            return Some(State::Signs(date(since)));
        }
        if let Some(until) = comment.strip_prefix("verifies until ") {
            return Some(State::Verifies(date(until)));
        }
        (comment == "next").then_some(State::Next)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Signs(None) => write!(f, "signs"),
            State::Signs(Some(since)) => {
                write!(f, "signs since {}", format_rfc3339_seconds(*since))
            }
            State::Verifies(None) => write!(f, "verifies"),
            State::Verifies(Some(until)) => {
                write!(f, "verifies until {}", format_rfc3339_seconds(*until))
            }
            State::Next => write!(f, "next"),
        }
    }
}

/// The text of the file.
impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Secret. Written by `pushgate keys`: the first key signs, all verify."
        )?;
        for key in &self.keys {
            writeln!(f, "# {}\n{}", key.state, key.line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(3600);

    fn at(hours: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + KEEP * (400_000 + hours)
    }

    fn states(ring: &Ring) -> Vec<String> {
        ring.keys.iter().map(|key| key.state.to_string()).collect()
    }

    /// Aim: an old key verifies for `keep` and goes with the first rotation after that. Fails if it goes
    /// earlier, or never.
    #[test]
    fn an_old_key_is_kept_for_its_time() {
        let mut ring = Ring::new(Kind::Cookie, at(0)).unwrap_or_else(|e| panic!("{e}"));
        let first = ring.keys[0].line.clone();
        for (hour, keep, kept, removed) in [(1, 2, true, 0), (2, 2, true, 0), (3, 2, false, 1)] {
            let turn = ring.rotate(at(hour), KEEP * keep);
            let turn = turn.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(turn.removed, removed, "hour {hour}");
            assert_eq!(turn.old_until, Some(at(hour + 2)));
            ring = Ring::parse(&ring.to_string()).unwrap_or_else(|e| panic!("{e}"));
            let has = ring.keys.iter().any(|key| key.line == first);
            assert_eq!(has, kept, "hour {hour}");
        }
        let ends = [at(5), at(4)].map(|t| format!("verifies until {}", format_rfc3339_seconds(t)));
        let states = states(&ring);
        assert!(
            states[0].starts_with("signs since ") && states[3] == "next",
            "{states:?}"
        );
        assert_eq!(states[1..3], ends);
    }

    /// Aim: a file made by hand loses no key, and no key signs that other edges lack: the first rotation only
    /// adds one. Fails if the new key signs at once.
    #[test]
    fn a_file_made_by_hand_gets_a_next_key_first() {
        let keys = [
            "00112233445566778899aabbccddeeff",
            "AAECAwQFBgcICQoLDA0ODw==",
        ];
        let text = format!("# mine\n{}\n\n{}\n", keys[0], keys[1]);
        let mut ring = Ring::parse(&text).unwrap_or_else(|e| panic!("{e}"));
        let turn = ring.rotate(at(0), KEEP).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((turn.old_until, turn.removed), (None, 0));
        let lines: Vec<&str> = ring.keys.iter().map(|key| key.line.as_str()).collect();
        assert_eq!(lines[..2], keys);
        let until = format!("verifies until {}", format_rfc3339_seconds(at(1)));
        assert_eq!(states(&ring), ["signs", until.as_str(), "next"]);
        // The second rotation lets it sign.
        let next = ring.keys[2].line.clone();
        let turn = ring.rotate(at(2), KEEP).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((turn.old_until, turn.removed), (Some(at(3)), 1));
        assert_eq!(ring.keys[0].line, next);
    }

    /// Aim: fingerprints tell keys apart and do not show them. Fails if a part of a key is printed.
    #[test]
    fn the_table_shows_no_secret() {
        let ring = Ring::new(Kind::Tickets, at(0)).unwrap_or_else(|e| panic!("{e}"));
        let table = ring.table();
        assert_eq!(table.lines().count(), 2, "{table}");
        for (line, key) in table.lines().zip(&ring.keys) {
            let print = line.split(' ').next().unwrap_or_default();
            assert_eq!(print.len(), 2 * FINGERPRINT);
            assert!(!key.line.contains(print), "{table}");
        }
    }
}
