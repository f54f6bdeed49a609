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
        if file.contains("certificates:") {
            let cipher = "ciphers:\n    - ECDHE-ECDSA-AES128-GCM-SHA256\n";
            assert!(printed.contains(cipher), "{printed}");
            assert!(printed.contains("\n    - X25519\n"), "{printed}");
        }
        let count = |text: &str| keys(&tree::parse(text).0.expect("YAML"));
        assert!(count(&printed) >= count(&file), "{printed}");
        // What the program runs is the same, but for the defaults that are now given.
        let (mut before, mut after) = (config.clone(), again);
        for config in [&mut before, &mut after] {
            config.warnings.clear();
            config.fill();
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
        "  connection_rate_per_client: 400/s",
        "  request_rate_per_client: 2000/s",
        "  max_hidden:\n    bytes: 32KiB",
        "memory:\n  limit: 80%",
    ] {
        assert!(printed.contains(line), "{line} in\n{printed}");
    }
    assert!(printed.contains("threads: "), "{printed}");
}

/// Aim: what nodes alone may see is hidden, and a file with something hidden is refused, because it would send `***`.
/// Fails if a value is hidden by its name only, or if a fault of a value repeats it.
#[test]
fn secrets_are_hidden() {
    let plugins = "plugins: [{ headers: { request: { set: { X-Origin: s3cret }, add: { X-Api-Key: s3cret } }, \
        response: { set: { Set-Cookie: s3cret, X-Shown: shown } } } }]";
    let dir = files();
    let parse = |text: &str| Config::parse(text, "f", dir.path());
    let printed = parse(&text("listener", plugins)).expect("sound");
    let printed = printed.effective().expect("text");
    assert!(!printed.contains("s3cret"), "{printed}");
    let shown = printed.contains("X-Origin: '***'") && printed.contains("X-Shown: shown");
    assert!(shown, "{printed}");
    let refused = parse(&printed).expect_err("hidden").to_string();
    assert!(
        refused.contains("`***` stands for a secret; expected the value"),
        "{refused}"
    );
    let wrong = plugins.replace("X-Origin: s3cret", "X-Origin: \"s3cret\\n\"");
    let wrong = parse(&text("listener", &wrong))
        .expect_err("a line feed")
        .to_string();
    assert!(!wrong.contains("s3cret"), "{wrong}");
}

/// Aim: the query of a health check may hold a token and is hidden. Fails if the path is printed whole.
#[test]
fn the_query_of_a_check_is_hidden() {
    let tail =
        "nodes:\n  n: { address: 127.0.0.1:2, health: { http: { path: \"/h?token=s3cret\" } } }";
    let config = Config::parse(&text("nodes", tail), "f", Path::new("")).expect("sound");
    let printed = config.effective().expect("text");
    assert!(printed.contains("path: /h?***"), "{printed}");
}
