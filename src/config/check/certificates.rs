//! Checks that certificate files are there, can be read and belong together.
//!
//! In: `certificates`. Out: faults, and the names each sound certificate covers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pushgate_plugins::host::to_ascii;

use super::acme;
use super::checker::{Check, steps};
use crate::config::error::echo;
use crate::credentials::ticket_keys::check_file;
use crate::credentials::{
    Certificate, Loaded, Ocsp, TlsError, key_of, names_of, open, password_of, unchanged, unix_now,
};

/// Names covered, by certificate.
pub(super) type Covered = BTreeMap<String, Vec<String>>;

/// What the sound certificates are good for.
#[derive(Default)]
pub(super) struct Sound {
    pub covered: Covered,
    /// Kinds of keys, each with the names of its certificate, by certificate.
    pub kinds: BTreeMap<String, Vec<(&'static str, Vec<String>)>>,
    /// Certificates that are not valid now, and why.
    pub not_valid: BTreeMap<String, String>,
}

pub(super) fn check(check: &mut Check<'_>) -> Sound {
    let mut sound = Sound::default();
    let config = check.config;
    for (name, certificate) in &config.certificates {
        if !has_one_form(check, name, certificate) {
            continue;
        }
        if let Some(block) = &certificate.acme
            && !acme::check(check, (name, certificate, block))
        {
            continue;
        }
        let whole = certificate.keystore.is_some() || certificate.acme.is_some();
        let loaded = match unchanged(certificate, check.dir) {
            Some(loaded) => Ok(loaded),
            None if whole => {
                let loaded = open(certificate, check.dir);
                loaded.map_err(|fault| tell(check, name, certificate, &fault))
            }
            None => pem(check, name, certificate),
        };
        let Ok(loaded) = loaded else {
            continue;
        };
        let mut names: Vec<_> = loaded.each().flat_map(|one| one.names.clone()).collect();
        // What the authority will have issued soon.
        names.extend(certificate.acme.iter().flat_map(|block| block.names()));
        sound.covered.insert(name.clone(), names);
        let kinds = loaded.each().map(|one| (one.kind(), one.names.clone()));
        sound.kinds.insert(name.clone(), kinds.collect());
        // The edge itself gets another one, for which it must run.
        if certificate.acme.is_none()
            && let Err(why) = loaded.check_time(unix_now())
        {
            sound.not_valid.insert(name.clone(), why.to_string());
        }
    }
    tickets(check);
    sound
}

fn tickets(check: &mut Check<'_>) {
    let tickets = &check.config.tickets;
    if let Some(file) = &tickets.file
        && let Err(fault) = check_file(&check.dir.join(file))
    {
        check.fault(&steps!["tickets", "file"], fault.to_string());
    }
}

/// Whether the block says where chain and key are, in one way.
fn has_one_form(check: &mut Check<'_>, name: &str, certificate: &Certificate) -> bool {
    let at = steps!["certificates", name];
    let (chain, key) = (certificate.chain.is_some(), certificate.key.is_some());
    let expected = "`chain` and `key`, or `keystore`";
    let before = check.found.len();
    let files = chain || key || certificate.keystore.is_some();
    let password = certificate.password_file.is_some() || certificate.password_env.is_some();
    match (chain, key, certificate.keystore.is_some()) {
        _ if certificate.acme.is_some() => {
            if files || password || certificate.alias.is_some() {
                let expected = "`acme` without files and passwords";
                check.on_key(&at, "the edge keeps the file of `acme` itself", expected);
            }
            return check.found.len() == before;
        }
        (true, true, false) | (false, false, true) => {}
        (_, _, true) => check.on_key(&at, "a keystore has chain and key in it", expected),
        (false, true, false) => check.on_key(&at, "key `chain` is missing", expected),
        (true, false, false) => check.on_key(&at, "key `key` is missing", expected),
        (false, false, false) => {
            let expected = "`chain` and `key`, `keystore` or `acme`";
            check.on_key(&at, "neither PEM files nor a keystore", expected);
        }
    }
    if certificate.alias.is_some() && certificate.keystore.is_none() {
        let at = steps!["certificates", name, "alias"];
        check.on_key(&at, "only a keystore has aliases", "`keystore` beside it");
    }
    if certificate.password_file.is_some() && certificate.password_env.is_some() {
        let at = steps!["certificates", name, "password_env"];
        check.on_key(
            &at,
            "both `password_file` and `password_env`",
            "one of them",
        );
    }
    check.found.len() == before
}

/// Loads a PEM certificate. Chain and key are looked at one after the other, because opening both
/// stops at the first fault.
fn pem(check: &mut Check<'_>, name: &str, certificate: &Certificate) -> Result<Arc<Loaded>, ()> {
    let at =
        |file: &Option<std::path::PathBuf>| check.dir.join(file.as_deref().unwrap_or("".as_ref()));
    let names = names_of(&at(&certificate.chain));
    let password = password_of(certificate, check.dir);
    let key = password.and_then(|p| key_of(&at(&certificate.key), p.as_deref()).map(|_| ()));
    if let Err(fault) = &names {
        check.fault(&steps!["certificates", name, "chain"], fault.to_string());
    }
    if let Err(fault) = &key {
        tell(check, name, certificate, fault);
    }
    if names.is_err() || key.is_err() {
        return Err(());
    }
    let loaded = open(certificate, check.dir);
    loaded.map_err(|fault| tell(check, name, certificate, &fault))
}

/// Records a fault under the key it is about.
fn tell(check: &mut Check<'_>, name: &str, certificate: &Certificate, fault: &TlsError) {
    if let TlsError::Alias { alias, known, .. } = fault {
        let expected = format!("an alias of the keystore: {known}");
        let found = format!("found `{}`", echo(alias));
        check.expect(&steps!["certificates", name, "alias"], found, expected);
        return;
    }
    if certificate.acme.is_some() {
        let expected = "to remove the file: the edge then gets another certificate";
        check.expect(
            &steps!["certificates", name, "acme", "state"],
            fault.to_string(),
            expected,
        );
        return;
    }
    let main = match certificate.keystore {
        Some(_) => "keystore",
        None => "chain",
    };
    let password = match certificate.password_env {
        Some(_) => "password_env",
        None => "password_file",
    };
    let key = match fault {
        TlsError::NoPassword { .. } => password,
        TlsError::Unreadable { path, .. } if is(path, &certificate.password_file) => password,
        TlsError::Ocsp { .. } => "ocsp",
        TlsError::Unreadable { path, .. } if is_ocsp(path, certificate) => "ocsp",
        TlsError::Order { .. } => main,
        _ if certificate.keystore.is_none() => "key",
        _ => main,
    };
    check.fault(&steps!["certificates", name, key], fault.to_string());
}

fn is(path: &Path, file: &Option<std::path::PathBuf>) -> bool {
    file.as_ref().is_some_and(|file| path.ends_with(file))
}

fn is_ocsp(path: &Path, certificate: &Certificate) -> bool {
    matches!(&certificate.ocsp, Ocsp::File(file) if path.ends_with(file))
}

/// Whether a certificate for `name` is good for `host`. A wildcard stands for one label
/// (RFC 9525 §6.3); a wildcard host is covered where any host below it is.
pub(crate) fn covers(name: &str, host: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let host = to_ascii(host.trim_end_matches('.')).to_ascii_lowercase();
    if name == host {
        return true;
    }
    if let Some(zone) = host.strip_prefix('*') {
        return zone.len() > 1 && name.ends_with(zone);
    }
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(zone), Some((label, rest))) => !label.is_empty() && zone == rest,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wildcard_covers_one_label() {
        for (name, host, expected) in [
            ("*.mycompany.com", "mycompany.com", false),
            ("*.mycompany.com", "a.push.mycompany.com", false),
            ("*.mycompany.com", ".mycompany.com", false),
            ("push.mycompany.com", "push1.mycompany.com", false),
            ("*.other.com", "*.mycompany.com", false),
            ("*.mycompany.com", "push1.mycompany.com", true),
            ("*.MyCompany.com", "PUSH1.mycompany.com.", true),
            ("push1.mycompany.com", "push1.mycompany.com", true),
            ("push1.mycompany.com", "*.mycompany.com", true),
            ("*.mycompany.com", "*.mycompany.com", true),
            ("xn--bcher-kva.example", "bücher.example", true),
        ] {
            assert_eq!(covers(name, host), expected, "{name} for {host}");
        }
    }
}
