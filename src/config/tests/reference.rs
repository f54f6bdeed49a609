//! Compares the reference configuration and the documents with the model.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Config, files};
use crate::config::defaults::{BODY_PREFIX_TIMEOUT, RETRY_AFTER};
use crate::config::tree::{self, Kind, Node};

const REFERENCE: &str = include_str!("../../../conf/pushgate.yaml");
pub(super) const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
pub(super) const DEFAULTS: &str = include_str!("../../../docs/defaults.md");

/// Blocks of the model: the heading in `docs/configuration.md`, and a file with an unknown key there,
/// whose fault lists the keys the model knows.
pub(super) const BLOCKS: &[(&str, &str)] = &[
    ("top", "'?': 1"),
    ("memory", "memory: { '?': 1 }"),
    ("admin", "admin: { '?': 1 }"),
    ("admin.unix", "admin: { unix: { '?': 1 } }"),
    ("admin.health", "admin: { health: { '?': 1 } }"),
    ("log", "log: { '?': 1 }"),
    ("state", "state: { '?': 1 }"),
    ("state.redis", "state: { redis: { '?': 1 } }"),
    ("resolvers", "resolvers: { '?': 1 }"),
    (
        "pools.<name>.discover",
        "pools: { p: { discover: { '?': 1 } } }",
    ),
    ("nodes.<name>", "nodes: { n: { '?': 1 } }"),
    ("pools.<name>", "pools: { p: { '?': 1 } }"),
    (
        "pools.<name>.rebalance",
        "pools: { p: { rebalance: { '?': 1 } } }",
    ),
    ("health", "pools: { p: { health: { '?': 1 } } }"),
    (
        "health.tcp",
        "pools: { p: { health: { tcp: { '?': 1 } } } }",
    ),
    (
        "health.tls",
        "pools: { p: { health: { tls: { '?': 1 } } } }",
    ),
    (
        "health.agent",
        "pools: { p: { health: { agent: { '?': 1 } } } }",
    ),
    (
        "health.passive",
        "pools: { p: { health: { passive: { '?': 1 } } } }",
    ),
    (
        "health.http",
        "pools: { p: { health: { http: { '?': 1 } } } }",
    ),
    ("nodes.<name>.tls", "nodes: { n: { tls: { '?': 1 } } }"),
    ("nodes.<name>.tcp", "nodes: { n: { tcp: { '?': 1 } } }"),
    ("certificates.<name>", "certificates: { c: { '?': 1 } }"),
    (
        "certificates.<name>.acme",
        "certificates: { c: { acme: { '?': 1 } } }",
    ),
    (
        "certificates.<name>.acme.external_account",
        "certificates: { c: { acme: { external_account: { '?': 1 } } } }",
    ),
    ("tickets", "tickets: { '?': 1 }"),
    ("listeners[]", "listeners: [{ '?': 1 }]"),
    ("listeners[].unix", "listeners: [{ unix: { '?': 1 } }]"),
    ("listeners[].tls", "listeners: [{ tls: { '?': 1 } }]"),
    (
        "listeners[].max_hidden",
        "listeners: [{ max_hidden: { '?': 1 } }]",
    ),
    ("listeners[].limits", "listeners: [{ limits: { '?': 1 } }]"),
    (
        "listeners[].limits.http2",
        "listeners: [{ limits: { http2: { '?': 1 } } }]",
    ),
    ("listeners[].tcp", "listeners: [{ tcp: { '?': 1 } }]"),
    (
        "listeners[].plugins",
        "listeners: [{ plugins: [{ '?': 1 }] }]",
    ),
    (
        "host_route",
        "listeners: [{ plugins: [{ host_route: { '?': 1 } }] }]",
    ),
    (
        "vip_route",
        "listeners: [{ plugins: [{ vip_route: { '?': 1 } }] }]",
    ),
    (
        "sticky_cookie",
        "listeners: [{ plugins: [{ sticky_cookie: { '?': 1 } }] }]",
    ),
    (
        "sticky_ip",
        "listeners: [{ plugins: [{ sticky_ip: { '?': 1 } }] }]",
    ),
    (
        "sticky_session",
        "listeners: [{ plugins: [{ sticky_session: { '?': 1 } }] }]",
    ),
    (
        "sticky_param",
        "listeners: [{ plugins: [{ sticky_param: { '?': 1 } }] }]",
    ),
    (
        "path_route",
        "listeners: [{ plugins: [{ path_route: { '?': 1 } }] }]",
    ),
    (
        "access",
        "listeners: [{ plugins: [{ access: { '?': 1 } }] }]",
    ),
    (
        "redirect_https",
        "listeners: [{ plugins: [{ redirect_https: { '?': 1 } }] }]",
    ),
    (
        "client_certificate",
        "listeners: [{ plugins: [{ client_certificate: { '?': 1 } }] }]",
    ),
    (
        "forwarded",
        "listeners: [{ plugins: [{ forwarded: { '?': 1 } }] }]",
    ),
    (
        "sni_route",
        "listeners: [{ tls: { certificates: [] }, plugins: [{ sni_route: { '?': 1 } }] }]",
    ),
    (
        "proxy_protocol",
        "listeners: [{ plugins: [{ proxy_protocol: { '?': 1 } }] }]",
    ),
    (
        "headers",
        "listeners: [{ plugins: [{ headers: { '?': 1 } }] }]",
    ),
    (
        "headers.request",
        "listeners: [{ plugins: [{ headers: { request: { '?': 1 } } }] }]",
    ),
];

/// Returns the keys that the model knows in the block of `yaml` with the unknown key `?`.
pub(super) fn keys_of_the_model(yaml: &str) -> Vec<String> {
    let faults = Config::parse(yaml, "f", Path::new("")).expect_err("an unknown key");
    let fault = faults
        .iter()
        .find(|f| f.message.ends_with(" `?`") && f.message.starts_with("unknown "))
        .unwrap_or_else(|| panic!("{yaml}: {faults}"));
    let known = fault.expected.as_deref().unwrap_or_default();
    known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Returns the reference with the keys it comments out (`#` without a blank) put in.
pub(super) fn everything() -> String {
    REFERENCE
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '#']) && !rest.is_empty() => {
                format!("{}{rest}\n", &line[..line.len() - rest.len() - 1])
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_reference_is_sound_as_it_stands_and_with_everything_put_in() {
    let dir = files();
    for text in [REFERENCE.to_owned(), everything()] {
        let text = text.replace("PUSH_KEYSTORE_PASSWORD", "CARGO_PKG_NAME");
        if let Err(faults) = Config::parse(&text, "conf/pushgate.yaml", dir.path()) {
            panic!("{faults}");
        }
    }
    assert_ne!(REFERENCE, everything());
}

/// Fails when a key is added to the model and not to the reference.
#[test]
fn every_key_is_in_the_reference() {
    fn collect(node: &Node, keys: &mut BTreeSet<String>) {
        match &node.kind {
            Kind::Map(entries) => entries.iter().for_each(|e| {
                keys.insert(e.key.clone());
                collect(&e.node, keys);
            }),
            Kind::List(items) => items.iter().for_each(|i| collect(&i.node, keys)),
            Kind::Scalar { .. } => {}
        }
    }
    let mut there = BTreeSet::new();
    collect(&tree::parse(&everything()).0.expect("YAML"), &mut there);
    for (block, yaml) in BLOCKS {
        for key in keys_of_the_model(yaml) {
            assert!(
                there.contains(&key),
                "`{key}` of {block} is not in conf/pushgate.yaml"
            );
        }
    }
}

/// Fails when a key has no row, or a row no key, in its block's table.
#[test]
fn every_key_has_its_entry_in_the_configuration_document() {
    for (block, yaml) in BLOCKS {
        let heading = format!("\n## `{block}`\n");
        let section = CONFIGURATION.split_once(&heading).map(|(_, rest)| rest);
        let section = section.unwrap_or_else(|| panic!("no section `{block}`"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows: Vec<&str> = section.lines().filter(|l| l.starts_with("| `")).collect();
        let documented: Vec<&str> = rows
            .iter()
            .filter_map(|row| row.split('`').nth(1))
            .collect();
        assert_eq!(documented, keys_of_the_model(yaml), "{block}");
        for row in rows {
            let cells = row.replace("\\|", "").matches('|').count();
            assert_eq!(cells, 6, "key, value, default, example, meaning: {row}");
        }
    }
}

#[test]
fn documented_constants_without_a_key_are_those_of_the_code() {
    for (what, default) in [
        ("`Retry-After` of a 503", RETRY_AFTER.to_string()),
        (
            "Wait for the beginning of a form",
            BODY_PREFIX_TIMEOUT.to_string(),
        ),
    ] {
        let row = format!("| {what} | `{default}` |");
        assert!(DEFAULTS.contains(&row), "{row} in docs/defaults.md");
    }
}

/// FAULTS D67: a file that was written only in part. Every prefix is valid, or its faults have a place.
#[test]
fn every_half_of_the_reference_is_answered_with_a_place() {
    let dir = files();
    let (mut sound, mut broken) = (0, 0);
    for (end, _) in REFERENCE.char_indices().step_by(7) {
        match Config::parse(&REFERENCE[..end], "f", dir.path()) {
            Ok(_) => sound += 1,
            Err(faults) => {
                broken += 1;
                assert!(
                    faults.iter().all(|f| f.line > 0 && f.column > 0),
                    "{end}: {faults}"
                );
            }
        }
    }
    assert!(
        sound > 0 && broken > sound,
        "{sound} sound, {broken} broken"
    );
}
