//! Checks `resolvers`, and the `discover` of pools.
//!
//! In: the decoded blocks. Out: faults. No name is looked up, because it may be registered later.

use super::checker::{Check, steps};
use super::node_tls::tls_is_sound;
use crate::config::Discover;
use crate::config::bounds::MAX_SERVERS;

/// Longest name of a pool with `discover`, because the names of its nodes begin with it.
const MAX_POOL: usize = 40;

pub(super) fn check(check: &mut Check<'_>) {
    let resolvers = &check.config.resolvers;
    let at = |key: &'static str| steps!["resolvers", key];
    if resolvers.addresses.len() > MAX_SERVERS {
        let found = format!("{} servers", resolvers.addresses.len());
        check.expect(&at("addresses"), found, format!("at most {MAX_SERVERS}"));
    }
    for (i, server) in resolvers.addresses.iter().enumerate() {
        if server.port() == 0 || server.ip().is_unspecified() {
            let found = format!("nothing can be reached at `{server}`");
            let at = steps!["resolvers", "addresses", i];
            check.expect(&at, found, "the address and port of a DNS server");
        }
    }
    if resolvers.min_ttl > resolvers.max_ttl {
        let found = format!("found `{}`", resolvers.min_ttl);
        let expected = format!("at most `max_ttl`, which is {}", resolvers.max_ttl);
        check.expect(&at("min_ttl"), found, expected);
    }
}

pub(super) fn block_is_sound(check: &mut Check<'_>, pool: &str, block: &Discover) {
    let at = steps!["pools", pool, "discover"];
    match (&block.host, &block.srv) {
        (None, None) => check.on_key(
            &at,
            "neither `host` nor `srv`",
            "`host: push.internal:80` or `srv: _push._tcp.internal`",
        ),
        (Some(_), Some(_)) => check.on_key(&at, "both `host` and `srv`", "one of them"),
        _ => {}
    }
    if pool.len() > MAX_POOL {
        let expected = format!("at most {MAX_POOL}: its nodes are called `{pool}-10.0.0.1-80`");
        check.on_key(
            &steps!["pools", pool],
            format!("a name of {} letters", pool.len()),
            expected,
        );
    }
    let below = |key: &'static str| steps!["pools", pool, "discover", key];
    if let Some(tls) = &block.tls {
        tls_is_sound(check, &below("tls"), tls);
        if block.srv.is_some() && tls.verify && tls.server_name.is_none() {
            let expected = "`server_name`: else an answer, which may be forged, would choose the name that is proven";
            check.on_key(&below("tls"), "no name that nodes must prove", expected);
        }
    }
}
