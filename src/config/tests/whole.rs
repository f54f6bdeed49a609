//! Properties of the whole way from a file to its faults.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Config, files, text};
use crate::config::error::MAX_ERRORS;

fn printed(yaml: &str) -> String {
    Config::parse(yaml, "f", Path::new(""))
        .expect_err("broken")
        .to_string()
}

/// FAULTS D67: one run reports all faults. Fails if decoding or checking stops at one.
#[test]
fn all_faults_of_a_file_are_told_in_one_run() {
    let yaml = "\
threads: 0
drain_deadline: 5
nodes:
  ls1: { address: 10.0.0.1 }
  ls2: { adress: 10.0.0.2:80 }
  ls2: { address: 10.0.0.2:80 }
  ls3: { address: 10.0.0.3:80, weight: 2000 }
pools:
  push: { nodes: [ls1, ls4], balance: fewest, health: { http: { path: x }, rise: 0 } }
listeners:
  - name: push
    mode: http
    max_hidden: 1KiB
    to: pus
  - name: push
    bind: [127.0.0.1:80, 127.0.0.1:80]
    mod: tcp
";
    let places: Vec<String> = Config::parse(yaml, "f", Path::new(""))
        .expect_err("broken")
        .iter()
        .map(|f| format!("{}:{} {}", f.line, f.column, f.path))
        .collect();
    assert_eq!(
        places,
        [
            "1:10 threads",
            "2:17 drain_deadline",
            "4:19 nodes.ls1.address",
            "5:10 nodes.ls2.adress",
            "6:3 nodes.ls2",
            "7:40 nodes.ls3.weight",
            "9:24 pools.push.nodes[1]",
            "9:39 pools.push.balance",
            "9:71 pools.push.health.http.path",
            "9:82 pools.push.health.rise",
            "11:5 listeners[0]",
            "13:17 listeners[0].max_hidden",
            "14:9 listeners[0].to",
            "15:11 listeners[1].name",
            "16:26 listeners[1].bind[1]",
            "17:5 listeners[1].mod",
        ]
    );
}

/// A wrong value is reported once: that it is then missing is no second fault.
#[test]
fn consequences_of_a_fault_are_not_told() {
    let dir = files();
    for (base, tail) in [
        (
            "listeners",
            "listeners: [{ name: a, bind: [127.0.0.1:1], mode: http, to: [] }]",
        ),
        (
            "nodes",
            "nodes: { n: { address: x } }\npools: { p: { nodes: [n] } }",
        ),
        (
            "nodes",
            "nodes: { n: { address: 127.0.0.1:2, health: { tpc: {} } } }",
        ),
        ("top", "admin: {}\ncertificates: {}"),
        ("top", "admin: { bind: 0.0.0.0:9900, token_file: {} }"),
        ("listener", "plugins: [{ forwarded: ~ }]"),
    ] {
        let faults = Config::parse(&text(base, tail), "f", dir.path()).expect_err(tail);
        let printed = faults.to_string();
        assert_eq!(printed.lines().count(), 1, "{tail}\n{printed}");
    }
}

#[test]
fn a_fault_behind_an_alias_is_told_once_where_it_is_written() {
    let tail = "nodes:\n  n: { address: 127.0.0.1:2, health: &h { tcp: {}, rise: 0 } }\n  \
                m: { address: 127.0.0.1:3, health: *h }";
    assert_eq!(
        printed(&text("nodes", tail)),
        "f:4:58: nodes.m.health.rise: found `0`; expected a whole number from 1 to 100"
    );
}

#[test]
fn a_sound_alias_is_taken() {
    let tail = "nodes:\n  n: { address: 127.0.0.1:2, health: &h { tcp: {}, rise: 3 } }\n  \
                m: { address: 127.0.0.1:3, health: *h }";
    let config = Config::parse(&text("nodes", tail), "f", Path::new("")).expect("sound");
    assert_eq!(config.nodes["m"].health.as_ref().map(|h| h.rise), Some(3));
}

/// FAULTS D67. CRLF and a byte order mark move no position.
#[test]
fn windows_files_have_the_same_positions() {
    let unix = text("top", "threads: 0\nmax_connections: x");
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    assert_eq!(printed(&windows), printed(&unix));
    assert!(
        printed(&unix).starts_with("f:5:10: threads: "),
        "{}",
        printed(&unix)
    );
}

/// The wrong element is cut out of the tree; later elements keep their numbers.
#[test]
fn list_elements_keep_their_numbers() {
    let tail =
        "listeners:\n  - { name: a, bind: [x, 127.0.0.1:1, 127.0.0.1:1], mode: http, to: n }";
    let printed = printed(&text("listeners", tail));
    assert!(
        printed.contains("f:4:39: listeners[0].bind[2]: "),
        "{printed}"
    );
    assert!(
        printed.contains(" by listeners[0].bind[1] in line 4"),
        "{printed}"
    );
}

#[test]
fn the_number_of_faults_told_is_bounded() {
    let many: String = (0..500).map(|i| format!("k{i}: 1\n")).collect();
    let printed = printed(&many);
    assert_eq!(printed.lines().count(), MAX_ERRORS + 1);
    assert!(
        printed.ends_with("only the first 100 faults are shown"),
        "{printed}"
    );
}

/// FAULTS D67: YAML bombs, deep nesting, a megabyte of anything. Each must be answered at once; the
/// deadline is ten times what the slowest needs in a debug build beside five other builds.
#[test]
fn hostile_files_are_answered_quickly() {
    let n = 1024 * 1024;
    let bomb = ('b'..='z').fold("a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned(), |s, c| {
        let before = format!("*{}, ", (c as u8 - 1) as char).repeat(9);
        s + &format!("{c}: &{c} [{before}]\n")
    });
    let chain: String = (1..2000)
        .map(|i| format!("a{i}: &a{i} [*a{}]\n", i - 1))
        .collect();
    for (name, yaml) in [
        ("bomb", bomb),
        ("chain", format!("a0: &a0 x\n{chain}")),
        ("flow lists", "[".repeat(n)),
        ("flow maps", "{? ".repeat(n / 3)),
        ("block lists", "- ".repeat(n / 2)),
        ("block keys", "? ".repeat(n / 2)),
        ("colons", "a: ".repeat(n / 3)),
        ("commas", format!("[{}", ",".repeat(n))),
        ("keys", (0..n / 12).map(|i| format!("k{i}: 1\n")).collect()),
        ("items", format!("listeners: [{}]", "x, ".repeat(40_000))),
        ("quoted", format!("a: \"{}", "x".repeat(n))),
        ("plain", format!("a: {}", "x".repeat(n))),
        ("zeros", "\0".repeat(n)),
        ("tabs", "\t".repeat(n)),
        ("anchors", "&a ".repeat(n / 3)),
    ] {
        let start = Instant::now();
        let printed = printed(&yaml);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{name}: {:?}",
            start.elapsed()
        );
        assert!(
            printed.len() < 64 * 1024,
            "{name} prints {} bytes",
            printed.len()
        );
        assert!(!printed.contains(":0:0"), "{name}: {printed}");
    }
}

#[test]
fn secrets_are_not_repeated() {
    let dir = files();
    for (base, tail) in [
        (
            "top",
            "admin: { bind: 127.0.0.1:9900, token_file: good.token }\nthreads: 0",
        ),
        (
            "top",
            "certificates: { c: { chain: good.pem, key: locked.key } }",
        ),
        ("top", "certificates: { password: s3cret }"),
    ] {
        let faults = Config::parse(&text(base, tail), "f", dir.path()).expect_err("broken");
        assert!(!faults.to_string().contains("s3cret"), "{faults}");
    }
}

/// Relative paths start at the file's folder, wherever the program was started.
#[test]
fn files_are_found_beside_the_configuration() {
    let dir = files();
    let path = dir.path().join("pushgate.yaml");
    let tail = "admin: { bind: 0.0.0.0:9900, token_file: good.token }\n\
                certificates: { c: { chain: good.pem, key: good.key } }";
    std::fs::write(&path, text("top", tail)).expect("a file for tests");
    let config = Config::load(&path).expect("sound");
    assert_eq!(config.dir, dir.path());
    let absent = Config::load(&dir.path().join("absent.yaml")).expect_err("absent");
    assert_eq!(absent.iter().map(|f| f.line).collect::<Vec<_>>(), [0]);
}
