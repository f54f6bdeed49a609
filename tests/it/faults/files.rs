//! D67: files that the edge must refuse, at the start and at a reload: exit code, position on standard error,
//! and the running configuration goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;

use super::Rig;

const GOOD: &str = "nodes:
  n1: { address: 10.0.0.1:8080 }
pools:
  p: { nodes: [n1] }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: p }
log: { access: stdout }
admin: { bind: 127.0.0.1:9900 }
";

/// A row: its name, the file, and the position of its first fault; line 0: the file as a whole.
struct Bad {
    name: &'static str,
    bytes: Vec<u8>,
    line: usize,
}

fn bad() -> Vec<Bad> {
    let row = |name, text: String, line| Bad {
        name,
        bytes: text.into_bytes(),
        line,
    };
    let changed = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replace(from, to)
    };
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let of = vec![format!("*a{}", n - 1); 9].join(", ");
        bomb += &format!("a{n}: &a{n} [{of}]\n");
    }
    let mut rows = vec![
        row(
            "unknown key",
            changed(
                "address: 10.0.0.1:8080 }",
                "address: 10.0.0.1:8080, wieght: 2 }",
            ),
            2,
        ),
        row(
            "duplicate key",
            changed("pools:\n", "  n1: { address: 10.0.0.1:8081 }\npools:\n"),
            3,
        ),
        row("wrong type", format!("{GOOD}threads: many\n"), 9),
        row("unknown name", changed("to: p", "to: q"), 6),
        row("tab", changed("  n1:", "\tn1:"), 2),
        row(
            "half-written",
            GOOD[..GOOD.find("mode").expect("a key")].to_owned(),
            7,
        ),
        row("bomb", bomb + GOOD, 5),
        row(
            "bound twice",
            changed("[200.0.0.10:80]", "[200.0.0.10:80, 200.0.0.10:80]"),
            6,
        ),
        row("no host", changed("10.0.0.1:8080", "ls1..example:8080"), 2),
        row(
            "two cookies",
            changed(
                "to: p }",
                "to: p, plugins: [{ sticky_cookie: {} }, { sticky_cookie: {} }] }",
            ),
            6,
        ),
        row("control character", changed("n1: {", "n1\u{0}: {"), 2),
        row(
            "10 MB",
            format!("{GOOD}{}", "# filler\n".repeat(10 << 20 >> 3)),
            0,
        ),
        row("empty", String::new(), 1),
    ];
    rows.push(Bad {
        name: "not UTF-8",
        bytes: [GOOD.as_bytes(), b"threads: \xff\n"].concat(),
        line: 9,
    });
    rows
}

/// Whether `told` has a line `FILE:LINE:COL: …` (`FILE: …` for line 0).
fn places(told: &str, file: &Path, line: usize) -> bool {
    let file = file.display().to_string();
    let rests = told
        .lines()
        .filter_map(|l| l.split_once(&file))
        .map(|(_, rest)| rest);
    let mut found = false;
    for rest in rests {
        found |= match line {
            0 => rest.starts_with(": "),
            _ => rest
                .strip_prefix(&format!(":{line}:"))
                .and_then(|r| r.split_once(':'))
                .is_some_and(|(column, _)| column.parse::<usize>().is_ok_and(|c| c > 0)),
        };
    }
    found
}

/// Runs the program on `file` until it exits; returns exit code and standard error.
async fn run(file: &Path) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pushgate"));
    command.args(["run", "-c"]).arg(file).kill_on_drop(true);
    let output = deadline("the program's end", command.output()).await;
    let output = output.expect("the built program starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), error)
}

/// D67 at the start: the program exits with code 1 at once and prints the position. Fails if it runs, panics,
/// or prints nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_does_not_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let block = crate::vip::Block::claim();
    for row in bad() {
        let file = dir.path().join("edge.yaml");
        let text = String::from_utf8(row.bytes.clone());
        let bytes = text.map_or(row.bytes, |t| block.map(&t).into_bytes());
        std::fs::write(&file, bytes).expect("write");
        let start = Instant::now();
        let (code, error) = run(&file).await;
        assert_eq!(code, Some(1), "{}: {error}", row.name);
        assert!(places(&error, &file, row.line), "{}: {error}", row.name);
        assert!(!error.contains("panicked"), "{}: {error}", row.name);
        assert!(start.elapsed() < Duration::from_secs(5), "{}", row.name);
    }
    for (name, file) in [
        ("missing", dir.path().join("absent")),
        ("a folder", dir.path().into()),
    ] {
        let (code, error) = run(&file).await;
        assert_eq!(code, Some(1), "{name}: {error}");
        assert!(places(&error, &file, 0), "{name}: {error}");
    }
}

async fn reload_ok(edge: &Edge) -> f64 {
    edge.metric("pushgate_config_last_reload_successful").await
}

/// D67 at a reload: the file is refused with its position, the gauge is 0, a live stream and new clients are
/// served as before, and the next good file is applied. Fails if a bad file changes the running
/// configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing() {
    let mut rig = Rig::start(1, GOOD).await;
    let file = rig.edge.path();
    let mut live = H1::connect(&rig.good).await;
    live.send("GET", "/sse?every=20", &[], b"")
        .await
        .expect("send");
    assert_eq!(live.head().await.expect("a head").status, 200);
    for row in bad() {
        let text = String::from_utf8(row.bytes.clone());
        let bytes = text.map_or(row.bytes, |t| rig.block.map(&t).into_bytes());
        std::fs::write(&file, bytes).expect("write");
        let answer = rig.edge.admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 422, "{}: {}", row.name, answer.text());
        assert!(
            places(&answer.text(), &file, row.line),
            "{}: {}",
            row.name,
            answer.text()
        );
        assert_eq!(reload_ok(&rig.edge).await, 0.0, "{}", row.name);
        rig.serves(row.name).await;
        rig.edge.rewrite(&rig.block, GOOD);
        let answer = rig.edge.admin("POST", "/api/reload").await;
        assert_eq!(
            (answer.status, reload_ok(&rig.edge).await),
            (200, 1.0),
            "{}",
            row.name
        );
    }
    // SIGHUP reports the same as the endpoint.
    std::fs::write(&file, "nodes: [").expect("write");
    rig.edge.signal(libc::SIGHUP);
    deadline("the gauge", async {
        while reload_ok(&rig.edge).await > 0.0 {}
    })
    .await;
    rig.serves("SIGHUP").await;
    live.piece()
        .await
        .expect("the stream goes on")
        .expect("without end");
    drop(live);
    rig.rest().await;
}

/// D67: files written by another system, and a symbolic link that is swapped, are good. Fails if a BOM or
/// CRLF is a fault, or if the link's old target is read again.
#[tokio::test(flavor = "multi_thread")]
async fn odd_files_are_good() {
    let mut rig = Rig::start(1, GOOD).await;
    let mapped = rig.block.map(GOOD);
    let file = rig.edge.path();
    for (name, text) in [
        ("BOM", format!("\u{feff}{mapped}")),
        ("CRLF", mapped.replace('\n', "\r\n")),
        ("comments", format!("# a\n---\n{mapped}...\n")),
    ] {
        std::fs::write(&file, text).expect("write");
        let answer = rig.edge.admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        rig.serves(name).await;
    }
    let dir = file.parent().expect("a folder");
    for (target, text, status) in [
        ("one.yaml", mapped.clone(), 200),
        ("two.yaml", mapped.replace("to: p", "to: q"), 422),
        ("one.yaml", mapped.clone(), 200),
    ] {
        std::fs::write(dir.join(target), text).expect("write");
        let new = dir.join("new");
        std::os::unix::fs::symlink(target, &new).expect("a link");
        std::fs::rename(&new, &file).expect("swap");
        let answer = rig.edge.admin("POST", "/api/reload").await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        rig.serves(target).await;
    }
    rig.rest().await;
}
