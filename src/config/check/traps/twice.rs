//! Warns of certificates that are never shown, because one listed before has the same name and kind of key.
//!
//! In: the names and kinds of sound certificates. Out: warnings, each at its place. Two kinds for one name are
//! right: clients get the one that they can use.

use std::collections::BTreeMap;

use super::super::certificates::Sound;
use super::super::checker::{Check, steps};
use crate::config::error::echo;
use crate::config::{Choose, ListenerTls};

pub(super) fn check(check: &mut Check<'_>, sound: &Sound) {
    let config = check.config;
    for (i, listener) in config.listeners.iter().enumerate() {
        if let Some(tls) = &listener.tls
            && tls.choose == Choose::Name
        {
            of_listener(check, i, tls, sound);
        }
    }
}

fn of_listener(check: &mut Check<'_>, i: usize, tls: &ListenerTls, sound: &Sound) {
    let mut first: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (k, word) in tls.certificates.iter().enumerate() {
        // One that is not valid now waits for its time, and one of a VIP has a use of its own.
        if sound.not_valid.contains_key(word) || tls.by_vip.values().any(|own| own == word) {
            continue;
        }
        let mut twice = None;
        for (kind, names) in sound.kinds.get(word).into_iter().flatten() {
            for name in names {
                match first.get(&(*kind, name.as_str())) {
                    Some(other) if *other != word => {
                        twice.get_or_insert((*kind, name, *other));
                    }
                    Some(_) => {}
                    None => {
                        first.insert((kind, name), word);
                    }
                }
            }
        }
        if let Some((kind, name, other)) = twice {
            let why = format!(
                "`{other}`, which is listed before, has the name `{}` and the same kind of key ({kind}), so \
                 this one is never shown for it",
                echo(name)
            );
            let expected = "one certificate for each name and kind of key";
            check.warn(
                &steps!["listeners", i, "tls", "certificates", k],
                &why,
                expected,
            );
        }
    }
}
