//! The file with every default, as `check -T` prints it.

use std::path::Path;

use super::reference::everything;
use super::{Config, files, text};
use crate::config::tree::{self, Kind, Node};

/// Counts the keys of a file.
fn keys(node: &Node) -> usize {
    match &node.kind {
        Kind::Map(entries) => entries.iter().map(|e| 1 + keys(&e.node)).sum(),
        Kind::List(items) => items.iter().map(|i| keys(&i.node)).sum(),
        Kind::Scalar { .. } => 0,
    }
}

/// Aim: the printed file is sound and means the same, with every key of the reference and with none. Fails if
/// a type is written in a form that a file cannot have, or if a default is lost.
#[test]
fn the_printed_file_means_the_same() {
    let dir = files();
    let whole = everything().replace("PUSH_KEYSTORE_PASSWORD", "CARGO_PKG_NAME");
    let tls = "certificates: { good: { chain: good.pem, key: good.key } }\nlisteners:\n  - { name: a, bind: [127.0.0.1:1], mode: http, to: n, tls: { certificates: [good] } }\nnodes: { n: { address: 127.0.0.1:2 } }";
    for file in [whole.clone(), text("top", ""), text("all", tls)] {
        let parse = |text: &str| Config::parse(text, "f", dir.path());
        let config = parse(&file).unwrap_or_else(|e| panic!("{e}"));
        let printed = config.effective().expect("every path is UTF-8");
        let again = parse(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again.effective().as_deref(), Ok(printed.as_str()));
        let count = |text: &str| keys(&tree::parse(text).0.expect("YAML"));
        assert!(count(&printed) >= count(&file), "{printed}");
        // What the program runs is the same, but for the defaults that are now given.
        let (mut before, mut after) = (config.clone(), again);
        for config in [&mut before, &mut after] {
            config.warnings.clear();
            config.threads = None;
            config.nodes.values_mut().for_each(|n| n.health = None);
            config.pools.values_mut().for_each(|p| p.health = None);
            config.listeners.iter_mut().for_each(|l| l.tls = None);
            let plugins = config.listeners.iter_mut().flat_map(|l| &mut l.plugins);
            plugins.for_each(|plugin| plugin.fill());
        }
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
    }
}

/// Aim: defaults that depend on other keys are put in. Fails if the printed file leaves one to the reader.
#[test]
fn every_default_is_put_in() {
    let tail = "nodes:\n  n: { address: 127.0.0.1:2, health: { tcp: {}, interval: 2s } }";
    let config = Config::parse(&text("nodes", tail), "f", Path::new("")).expect("sound");
    let printed = config.effective().expect("text");
    for line in [
        "max_connections: 200000",
        "drain_deadline: 1h",
        "      fast_interval: 500ms",
        "      interval: 2s",
        "  max_hidden:\n    bytes: 32KiB",
        "memory:\n  limit: 80%",
    ] {
        assert!(printed.contains(line), "{line} in\n{printed}");
    }
    assert!(printed.contains("threads: "), "{printed}");
}

/// Aim: what a header carries may be a secret and is hidden; the rest is shown. Fails if the value of a
/// header with credentials is printed.
#[test]
fn secrets_are_hidden() {
    let plugins = "plugins: [{ headers: { request: { set: { Authorization: Basic s3cret, X-Debug: shown }, add: { X-Api-Key: s3cret } } } }]";
    let dir = files();
    let config = Config::parse(&text("listener", plugins), "f", dir.path()).expect("sound");
    let printed = config.effective().expect("text");
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(
        printed.contains("Authorization: '***'") && printed.contains("X-Debug: shown"),
        "{printed}"
    );
    assert!(
        Config::parse(&printed, "f", dir.path()).is_ok(),
        "{printed}"
    );
}
