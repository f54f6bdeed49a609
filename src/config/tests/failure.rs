//! Keys that say what a client gets if no node takes or answers its request.

use std::path::Path;

use super::{Case, Config, prints, text};
use crate::config::{OnLost, Pool};

/// The pool `p` with these keys.
fn pool(keys: &str) -> Pool {
    let tail = format!(
        "nodes: {{ n: {{ address: 127.0.0.1:2 }} }}\npools: {{ p: {{ nodes: [n], {keys} }} }}"
    );
    let config = Config::parse(&text("nodes", &tail), "f", Path::new(""));
    config.expect("sound").pools["p"].clone()
}

#[test]
fn each_fault_is_told_with_its_place() {
    prints(CASES);
}

/// Aim: `502` is a number to YAML and `"502"` a text, and both are the word. Fails if the decoder reads
/// only one of them.
#[test]
fn on_lost_is_a_word_or_a_number() {
    for (keys, expected) in [
        ("", OnLost::Close),
        ("on_lost: close", OnLost::Close),
        ("on_lost: 502", OnLost::BadGateway),
        ("on_lost: \"502\"", OnLost::BadGateway),
    ] {
        assert_eq!(pool(keys).on_lost, expected, "{keys}");
    }
}

/// Aim: `off` is 0 and the default is 1. Fails if `off` falls back to the default.
#[test]
fn retry_unanswered_is_off_or_a_number() {
    for (keys, expected) in [
        ("", 1),
        ("retry_unanswered: off", 0),
        ("retry_unanswered: 0", 0),
        ("retry_unanswered: 10", 10),
        ("retry_unanswered: \"3\"", 3),
    ] {
        assert_eq!(pool(keys).retry_unanswered, expected, "{keys}");
    }
}

/// Source: Lightstreamer clustering §1. Fails if paths are repeated by default or lost.
#[test]
fn retry_on_is_a_list_of_paths() {
    assert_eq!(pool("").retry_on, [""; 0]);
    let paths = ["/lightstreamer/create_session.txt", "/a"];
    let keys = format!("retry_on: [{}]", paths.join(", "));
    assert_eq!(pool(&keys).retry_on, paths);
}

/// Fails if a list of paths has no limit of its own.
#[test]
fn lists_of_paths_are_bounded() {
    for key in ["rebalance_on", "retry_on"] {
        for (count, faults) in [(64, 0), (65, 1)] {
            let paths = vec!["/a"; count].join(", ");
            let tail = format!(
                "nodes: {{ n: {{ address: 127.0.0.1:2 }} }}\npools: {{ p: {{ nodes: [n], {key}: [{paths}] }} }}"
            );
            let told = match Config::parse(&text("nodes", &tail), "f", Path::new("")) {
                Ok(_) => String::new(),
                Err(faults) => faults.to_string(),
            };
            assert_eq!(told.lines().count(), faults, "{told}");
            let line = format!("pools.p.{key}: {count} paths; expected at most 64");
            assert_eq!(told.contains(&line), faults == 1, "{told}");
        }
    }
}

/// Base, added text, lines printed; `…` stands for any text.
const CASES: &[Case] = &[
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], on_lost: 503, retry_unanswered: on }",
        &[
            "f:6:29: pools.p.on_lost: found `503`; expected `close` or `502`",
            "f:6:52: pools.p.retry_unanswered: found `on`; expected `off` or a whole number from 0 to 10",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], on_lost: evict, retry_unanswered: 11 }",
        &[
            "f:6:29: pools.p.on_lost: found `evict`; expected `close` or `502`",
            "f:6:54: pools.p.retry_unanswered: found `11`; expected `off` or a whole number from 0 to 10",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], on_lost: [close], retry_unanswered: -1 }",
        &[
            "f:6:29: pools.p.on_lost: found a list; expected `close` or `502`",
            "f:6:56: pools.p.retry_unanswered: found `-1`; expected `off` or a whole number from 0 to 10",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], retry_unanswered: 4294967296, retry_on: /a }",
        &[
            "f:6:38: pools.p.retry_unanswered: found `4294967296`; expected `off` or a whole number from 0 to 10",
            "f:6:60: pools.p.retry_on: found `/a`; expected a list, such as `[a, b]`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], retry_on: [/a, b, \"/c?d\"], rebalance_on: [e] }",
        &[
            "f:6:35: pools.p.retry_on[1]: found `b`; expected a path that starts with `/`, without query",
            "f:6:38: pools.p.retry_on[2]: found `/c?d`; expected a path that starts with `/`, without query",
            "f:6:62: pools.p.rebalance_on[0]: found `e`; expected a path that starts with `/`, without query",
        ],
    ),
];
