//! Checks listeners: names, addresses, TLS rules, certificates they name.
//!
//! In: `listeners`, `admin.bind`. Out: faults. Sources: FAULTS D67; Lightstreamer clustering §3.1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod};
use openssl::x509::X509;
use pushgate_plugins::unix::Shown;

use super::certificates::Sound;
use super::checker::{Check, steps};
use crate::config::error::echo;
use crate::config::tree::{Kind, Step};
use crate::config::{
    AdminHealth, Choose, Listener, ListenerTls, Mode, Profile, UnixSocket, Version,
};
use crate::credentials::{Crls, authorities_of};

/// Bytes of the list of authorities in a handshake (RFC 8446 §4.2.4, RFC 5246 §7.4.4).
const MAX_AUTHORITIES: usize = 65_535;

/// Bytes of a protocol's name (RFC 7301 §3.1).
const MAX_PROTOCOL: usize = 255;

pub(super) fn check(check: &mut Check<'_>, sound: &Sound) {
    let config = check.config;
    if config.listeners.is_empty() {
        check.expect(
            &steps!["listeners"],
            "no listener",
            "at least one, else no client can come in",
        );
    }
    let mut names = BTreeMap::new();
    for (i, listener) in config.listeners.iter().enumerate() {
        let at = steps!["listeners", i, "name"];
        check.name(&at, &listener.name, false);
        if let Some(first) = names.insert(&listener.name, i) {
            let first = check.tree.locate(&steps!["listeners", first, "name"]);
            let first = first.at.told(check.files, check.tree.locate(&at).at);
            check.expect(
                &at,
                format!("a listener is already called `{}`, {first}", listener.name),
                "another name: logs and metrics tell listeners by it",
            );
        }
        if let Some(to) = &listener.to
            && !check.names.is_target(to)
        {
            check.unknown(
                &steps!["listeners", i, "to"],
                "pool or node",
                to,
                check.names.targets(),
            );
        }
        forwarding(check, i, listener);
        if let Some(tls) = &listener.tls {
            certificates(check, i, listener, tls);
            one_is_valid(check, i, tls, sound);
            rules(check, i, tls);
            protocols(check, i, listener.mode, tls);
        }
    }
    binds(check);
}

/// `pass_forwarded` is about requests that no `forwarded` edits.
fn forwarding(check: &mut Check<'_>, i: usize, listener: &Listener) {
    let at = steps!["listeners", i, "pass_forwarded"];
    let edited = listener.plugins.iter().any(|p| p.as_str() == "forwarded");
    if listener.pass_forwarded && edited {
        let expected = "`trust` of `forwarded` instead";
        check.on_key(&at, "the plugin `forwarded` decides here", expected);
    } else if listener.pass_forwarded && listener.mode == Mode::Tcp {
        check.on_key(&at, "no header is read here", "`mode: http`");
    }
}

/// Rules of the handshake, tried out on OpenSSL itself: it knows which ciphers and groups it has.
fn rules(check: &mut Check<'_>, i: usize, tls: &ListenerTls) {
    let at = |key: &'static str| steps!["listeners", i, "tls", key];
    let lowest = match tls.profile {
        Profile::Modern => Version::Tls13,
        Profile::Intermediate => Version::Tls12,
    };
    let min = tls.min_version.unwrap_or(lowest);
    if tls.max_version.is_some_and(|max| max < min) {
        let expected = "no less than `min_version`, which the profile sets where it is not there";
        check.expect(&at("max_version"), "no version is left", expected);
    }
    if tls.choose == Choose::Vip && tls.by_vip.is_empty() {
        let expected = "`by_vip` beside it";
        check.on_key(
            &at("choose"),
            "no address has a certificate of its own",
            expected,
        );
    }
    ciphers(check, i, tls.ciphers.as_deref());
    for (k, group) in tls.groups.iter().flatten().enumerate() {
        if !known(|context| context.set_groups_list(group)) {
            let expected = "a group of OpenSSL's, such as `X25519MLKEM768`, `X25519`, `P-256`";
            let found = format!("found `{}`", echo(group));
            check.expect(&steps!["listeners", i, "tls", "groups", k], found, expected);
        }
    }
    match &tls.client_ca {
        Some(file) => {
            let authorities = authorities_of(&check.dir.join(file));
            match &authorities {
                Err(fault) => drop(check.fault(&at("client_ca"), fault.to_string())),
                Ok(all) => fit_into_a_handshake(check, &at("client_ca"), all),
            }
            if let (Some(lists), Ok(authorities)) = (&tls.client_crl, authorities)
                && let Err(fault) = Crls::open(&check.dir.join(lists), &authorities)
            {
                check.fault(&at("client_crl"), fault.to_string());
            }
        }
        None if tls.client_crl.is_some() => {
            let expected = "`client_ca` beside it";
            check.on_key(
                &at("client_crl"),
                "no client certificate is asked for",
                expected,
            );
        }
        None if check.tree.find(&at("client_certificate")).is_some() => check.on_key(
            &at("client_certificate"),
            "nobody can judge a client's certificate",
            "`client_ca` beside it",
        ),
        None => {}
    }
}

/// Each handshake sends the subjects of all authorities. With more bytes than their list can have, every
/// handshake would fail.
fn fit_into_a_handshake(check: &mut Check<'_>, at: &[Step], authorities: &[X509]) {
    // Each subject follows its length, in two bytes.
    let size = |one: &X509| one.subject_name().to_der().map_or(0, |der| der.len() + 2);
    let bytes: usize = authorities.iter().map(size).sum();
    if bytes > MAX_AUTHORITIES {
        check.expect(
            at,
            format!(
                "the names of its {} authorities have {bytes} bytes",
                authorities.len()
            ),
            format!("at most {MAX_AUTHORITIES} bytes, the most that TLS can send to a client"),
        );
    }
}

/// Each name alone: of a list OpenSSL refuses only one without any cipher that it has.
fn ciphers(check: &mut Check<'_>, i: usize, list: Option<&[String]>) {
    let expected = "names of TLS 1.2 ciphers, as `openssl ciphers` prints them";
    let Some(list) = list else { return };
    let mut all_known = true;
    for (k, entry) in list.iter().enumerate() {
        let mut words = entry.split([':', ',', ' ']).filter(|word| !word.is_empty());
        // `!`, `-` and `+` remove or move ciphers; `@` begins an order.
        let name = |word: &str| word.trim_start_matches(['!', '-', '+']).to_owned();
        let missing = |word: &&str| {
            !word.starts_with('@') && !known(|context| context.set_cipher_list(&name(word)))
        };
        if let Some(word) = words.find(missing) {
            all_known = false;
            let found = format!("OpenSSL has no cipher `{}`", echo(&name(word)));
            check.expect(
                &steps!["listeners", i, "tls", "ciphers", k],
                found,
                expected,
            );
        }
    }
    let whole = list.join(":");
    if all_known && !known(|context| context.set_cipher_list(&whole)) {
        let at = steps!["listeners", i, "tls", "ciphers"];
        check.expect(&at, "no cipher is left", expected);
    }
}

/// ALPN: the list is layer 4's, HTTP/2 layer 7's.
fn protocols(check: &mut Check<'_>, i: usize, mode: Mode, tls: &ListenerTls) {
    let at = |key: &'static str| steps!["listeners", i, "tls", key];
    let expected = "names of protocols, each of 1 to 255 bytes, such as `h2` and `http/1.1`";
    let illegal = |name: &String| !(1..=MAX_PROTOCOL).contains(&name.len());
    match (&tls.alpn, mode) {
        (Some(_), Mode::Http) => check.on_key(
            &at("alpn"),
            "this listener speaks HTTP itself",
            "`h2` instead, or `mode: tcp`",
        ),
        (Some(names), Mode::Tcp) if names.0.is_empty() => {
            check.expect(&at("alpn"), "an empty list", expected);
        }
        (Some(names), Mode::Tcp) => {
            for (k, name) in names.0.iter().enumerate().filter(|(_, n)| illegal(n)) {
                let item = steps!["listeners", i, "tls", "alpn", k];
                let found = format!("found `{}`", echo(name));
                check.expect(&item, found, expected);
            }
        }
        (None, _) => {}
    }
    if tls.h2_websocket && (!tls.h2 || mode == Mode::Tcp) {
        let expected = "`h2: true` beside it, in a listener of `mode: http`";
        check.on_key(&at("h2_websocket"), "no HTTP/2 is spoken here", expected);
    }
}

fn known(try_out: impl FnOnce(&mut SslContextBuilder) -> Result<(), ErrorStack>) -> bool {
    SslContext::builder(SslMethod::tls_server())
        .and_then(|mut context| try_out(&mut context))
        .is_ok()
}

fn certificates(check: &mut Check<'_>, i: usize, listener: &Listener, tls: &ListenerTls) {
    let at = steps!["listeners", i, "tls", "certificates"];
    if tls.certificates.is_empty() {
        check.expect(
            &at,
            "TLS without a certificate",
            "at least one name of `certificates`",
        );
    }
    let mut seen = BTreeSet::new();
    for (k, name) in tls.certificates.iter().enumerate() {
        let at = steps!["listeners", i, "tls", "certificates", k];
        if !check.names.certificates.contains(name) {
            check.unknown(&at, "certificate", name, &check.names.certificates);
        } else if !seen.insert(name) {
            check.expect(
                &at,
                format!("`{name}` is there twice"),
                "each certificate once",
            );
        }
    }
    // From the tree: two spellings of one IPv6 address are one key of the decoded map.
    let by_vip = steps!["listeners", i, "tls", "by_vip"];
    let Some(Kind::Map(entries)) = check.tree.find(&by_vip).map(|n| &n.kind) else {
        return;
    };
    let mut seen = BTreeSet::new();
    for key in entries.iter().map(|e| e.key.as_str()) {
        let at = steps!["listeners", i, "tls", "by_vip", key];
        let Ok(vip) = key.parse::<SocketAddr>() else {
            continue;
        };
        if !seen.insert(vip) {
            check.on_key(&at, format!("`{vip}` is there twice"), "each VIP once");
        }
        if !serves(listener, vip) && !check.was_cut(&bind_path(check, i)) {
            let expected = format!("a VIP of {}", bound_by(listener, Some(vip.ip())));
            check.on_key(
                &at,
                format!("`{vip}` is not bound by this listener"),
                expected,
            );
        }
        if let Some(name) = tls.by_vip.get(&vip)
            && !tls.certificates.contains(name)
            && !check.was_cut(
                &check
                    .tree
                    .locate(&steps!["listeners", i, "tls", "certificates"])
                    .path,
            )
        {
            check.unknown(&at, "certificate of this listener", name, &tls.certificates);
        }
    }
}

/// A certificate that is over must not stop the others; a listener that has no other can serve nobody.
fn one_is_valid(check: &mut Check<'_>, i: usize, tls: &ListenerTls, sound: &Sound) {
    let all = tls.certificates.iter();
    let faults: Option<Vec<_>> = all.map(|name| sound.not_valid.get(name)).collect();
    if let Some(first) = faults.iter().flatten().next() {
        check.expect(
            &steps!["listeners", i, "tls", "certificates"],
            format!("none of its certificates is valid now: {first}"),
            "at least one whose time has begun and has not ended",
        );
    }
}

fn bind_path(check: &Check<'_>, i: usize) -> String {
    check.tree.locate(&steps!["listeners", i, "bind"]).path
}

/// Names the addresses of `listener` for a message. `[::]` is the trap of those who know other programs, where
/// it takes IPv4 too.
pub(super) fn bound_by(listener: &Listener, vip: Option<IpAddr>) -> String {
    let all: Vec<_> = listener.bind.iter().map(|b| format!("`{b}`")).collect();
    let any = |b: &&SocketAddr| b.is_ipv6() && b.ip().is_unspecified();
    let hint = match (vip, listener.bind.iter().find(any)) {
        (Some(vip), Some(any)) if vip.is_ipv4() => {
            format!(
                "; `{any}` takes IPv6 only, `0.0.0.0:{}` beside it takes IPv4",
                any.port()
            )
        }
        _ => String::new(),
    };
    format!("`bind` ({}){hint}", all.join(", "))
}

/// Whether clients can reach `vip` through `listener`: bound itself, or by a wildcard address.
pub(super) fn serves(listener: &Listener, vip: SocketAddr) -> bool {
    let vip = SocketAddr::new(vip.ip().to_canonical(), vip.port());
    listener.bind.iter().any(|bind| {
        // `[::]` takes IPv6 only, whatever the kernel's bindv6only says: see `listener::accept::bind`.
        let any = bind.ip().is_unspecified() && bind.is_ipv6() == vip.is_ipv6();
        *bind == vip || (any && bind.port() == vip.port())
    })
}

/// Checks the block `unix` at `at`.
fn unix_is_sound(check: &mut Check<'_>, at: &[Step], unix: &UnixSocket) {
    let mut one = |key: &str, id: Result<Option<u32>, String>| {
        if let Err(why) = id {
            let at = [at, &[Step::from(key)]].concat();
            check.expect(&at, why, format!("the name of a {key}"));
        }
    };
    one("user", unix.uid());
    one("group", unix.gid());
}

/// The same address twice, in one listener, two, or the admin endpoint. A wildcard beside an exact
/// address is legal: the kernel prefers the exact one. Port 0 is another port each time.
fn binds(check: &mut Check<'_>) {
    let config = check.config;
    let mut taken: BTreeMap<SocketAddr, Vec<Step>> = BTreeMap::new();
    if let Some(admin) = &config.admin {
        let at = steps!["admin", "unix"];
        unix_is_sound(check, &at, &admin.unix);
        taken.insert(admin.bind, steps!["admin", "bind"].into());
        if let Some(health) = &admin.health {
            health_bind(check, admin.bind, health);
            taken.insert(health.bind, steps!["admin", "health", "bind"].into());
        }
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        let at = steps!["listeners", i, "unix"];
        unix_is_sound(check, &at, &listener.unix);
        if listener.bind.is_empty() {
            check.expect(
                &steps!["listeners", i, "bind"],
                "a listener without an address",
                "at least one address with its port",
            );
        }
        for (k, bind) in listener.bind.iter().enumerate() {
            let at = steps!["listeners", i, "bind", k];
            match taken.get(bind) {
                Some(_) if bind.port() == 0 => {}
                Some(first) => {
                    let first = check.tree.locate(first);
                    let line = first.at.told(check.files, check.tree.locate(&at).at);
                    check.expect(
                        &at,
                        format!(
                            "`{}` is already bound by {} {line}",
                            Shown(*bind),
                            first.path
                        ),
                        "each address once",
                    );
                }
                None => {
                    taken.insert(*bind, at.into());
                }
            }
        }
    }
}

/// The endpoint for health has an address of its own, because it needs no token.
fn health_bind(check: &mut Check<'_>, admin: SocketAddr, health: &AdminHealth) {
    if health.bind == admin && admin.port() > 0 {
        let found = format!("`{admin}` is already bound by admin.bind");
        check.expect(&steps!["admin", "health", "bind"], found, "another port");
    }
    if health.paths.is_empty() {
        let expected = "at least one of `livez`, `readyz`, `metrics`, or no `health`";
        check.expect(
            &steps!["admin", "health", "paths"],
            "an empty list",
            expected,
        );
    }
}
