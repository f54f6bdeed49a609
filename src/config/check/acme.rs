//! Checks the blocks `acme`: names that an authority can prove, and a listener that answers its challenge.
//!
//! In: `certificates`, `listeners`. Out: faults, and a warning where only a mapped port can lead to the listener.
//! Nothing is sent, and nothing is wrong with an authority that is away.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use pushgate_plugins::host::to_ascii;

use super::checker::{Check, steps};
use crate::config::error::echo;
use crate::config::{Acme, Certificate, Challenge, HostName, Ocsp};
use crate::credentials::{authorities_of, external_key};

/// Most names of one certificate: the limit of Let's Encrypt.
const MAX_DOMAINS: usize = 100;

/// Checks the block of the certificate `name`. Returns whether it has no fault.
pub(super) fn check(
    check: &mut Check<'_>,
    (name, certificate, acme): (&str, &Certificate, &Acme),
) -> bool {
    let before = check.found.len();
    domains(check, name, acme);
    authority(check, name, acme);
    challenge(check, name, acme);
    if certificate.ocsp != Ocsp::Off {
        let why = "the edge would not start with a certificate that names no responder";
        let at = steps!["certificates", name, "ocsp"];
        check.expect(&at, why, "`off` beside `acme`");
    }
    if let Some(file) = above(&check.dir.join(&acme.state)) {
        let at = steps!["certificates", name, "acme", "state"];
        let found = format!("`{}` is not a folder", echo(&file.display().to_string()));
        check.expect(&at, found, "a folder, or one that can be made");
    }
    check.found.len() == before
}

fn domains(check: &mut Check<'_>, name: &str, acme: &Acme) {
    let at = steps!["certificates", name, "acme", "domains"];
    if acme.domains.is_empty() {
        check.expect(&at, "an empty list", "at least one host name");
    }
    if acme.domains.len() > MAX_DOMAINS {
        let found = format!("{} names", acme.domains.len());
        check.expect(&at, found, format!("at most {MAX_DOMAINS}"));
    }
    for (k, domain) in acme.domains.iter().enumerate() {
        let at = steps!["certificates", name, "acme", "domains", k];
        let found = format!("found `{}`", echo(domain));
        let named = acme.names();
        let same = |other: &&String| Some(*other) == named.get(k);
        if domain.contains('*') {
            let why = "authorities prove a wildcard by DNS only, which this edge cannot answer";
            check.expect(&at, why, "a host name");
        } else if to_ascii(domain).parse::<HostName>().is_err() || domain.parse::<IpAddr>().is_ok()
        {
            check.expect(&at, found, "a host name, such as `push.mycompany.com`");
        } else if named.iter().take(k).any(|other| same(&other)) {
            let found = format!("`{}` is there twice", echo(domain));
            check.expect(&at, found, "each name once");
        }
    }
}

fn authority(check: &mut Check<'_>, name: &str, acme: &Acme) {
    let at = |key: &'static str| steps!["certificates", name, "acme", key];
    let is_https = |url: &Uri| url.scheme_str() == Some("https") && url.host().is_some();
    if !acme.url().parse().is_ok_and(|url: Uri| is_https(&url)) {
        let found = format!("found `{}`", echo(&acme.directory));
        let expected = "`letsencrypt`, `staging`, or the `https` URL of an authority's directory";
        check.expect(&at("directory"), found, expected);
    }
    if let Some(email) = &acme.email {
        let parts = email.split_once('@');
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '?' | '@');
        let is_one = |part: &str| !part.is_empty() && part.chars().all(plain);
        if !parts.is_some_and(|(who, host)| is_one(who) && is_one(host)) {
            let found = format!("found `{}`", echo(email));
            check.expect(
                &at("email"),
                found,
                "one address, such as `ops@mycompany.com`",
            );
        }
    }
    if let Some(external) = &acme.external_account
        && let Err(fault) = external_key(&check.dir.join(&external.key_file))
    {
        let at = steps!["certificates", name, "acme", "external_account", "key_file"];
        check.fault(&at, fault.to_string());
    }
    if let Some(file) = &acme.ca_file
        && let Err(fault) = authorities_of(&check.dir.join(file))
    {
        check.fault(&at("ca_file"), fault.to_string());
    }
}

/// Authorities ask at one port only. A listener at another one is right behind a mapping, so that is a warning.
fn challenge(check: &mut Check<'_>, name: &str, acme: &Acme) {
    let config = check.config;
    let block = steps!["certificates", name, "acme"];
    let key = steps!["certificates", name, "acme", "challenge"];
    let answers = |c: Challenge| config.listeners.iter().any(|l| c.is_answered_by(l));
    let expected = |c: Challenge| match c {
        Challenge::Http => "a listener of `mode: http` without `tls`, at port 80",
        Challenge::TlsAlpn => "a listener with `tls`, at port 443",
    };
    // A listener that could not be decoded may be the one.
    if check.was_cut("listeners") {
        return;
    }
    match config.challenge_of(acme) {
        None => {
            let why = "no listener answers the authority's challenge";
            let expected = "a listener of `mode: http` at port 80, or one with `tls` at port 443";
            check.on_key(&block, why, expected);
        }
        Some(c) if !answers(c) => {
            check.expect(&key, "no listener answers it", expected(c));
        }
        Some(c) if !config.is_asked_at(c) => {
            let (port, word) = (c.port(), c.as_str());
            let why = format!(
                "authorities ask at port {port} for `{word}`, and no listener that answers is bound there"
            );
            check.warn_key(&block, &why, "a mapping of that port in front of the edge");
        }
        Some(_) => {}
    }
}

/// Returns the nearest thing above `path`, or at it, that is there and is no folder.
fn above(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().find(|p| p.symlink_metadata().is_ok());
    there.filter(|p| !p.is_dir()).map(Path::to_owned)
}
