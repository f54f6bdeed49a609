//! The life of the process: signals before it serves, the path it was started by, the file with its number, its
//! user, a rival at the same upgrade socket, a second TERM.
//!
//! In: signals, links, users. Out: what the process does with them. Tests that need root return at once without
//! it. Source: FAULTS D69, D70.

use std::net::UdpSocket;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::Setup;
use crate::vip::Block;

const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: n1 }
";
/// Number of the user `nobody`.
const NOBODY: u32 = 65_534;

fn status_of(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_default().trim().to_owned()
}

/// Aim: HUP, USR1 and USR2 while names are awaited neither end the process nor get lost. Fails without handlers
/// before the start, or if a signal of that time is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn early_signals_are_remembered() {
    let block = Block::claim();
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let dns = UdpSocket::bind("127.0.0.1:0").expect("a server that does not answer");
    let silent = dns.local_addr().expect("its address");
    let yaml = format!(
        "resolvers: {{ addresses: [\"{silent}\"], timeout: 1s }}\n{}",
        YAML.replace("n1: {", "n2: { address: push.example:80 }, n1: {")
    );
    let edge = Edge::start_unready(&block, &yaml).await;
    deadline("signals that are held or handled", async {
        let bits = |field| u64::from_str_radix(&status_of(edge.pid(), field), 16).unwrap_or(0);
        while (bits("SigBlk:") | bits("SigCgt:")) & 1 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        edge.signal(signal);
    }
    assert!(!edge.log().contains("listener push on"), "{}", edge.log());
    edge.wait_log("listener push on").await;
    edge.wait_log("upgrade: starting").await;
    edge.wait_log("configuration reloaded").await;
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    assert_eq!(
        H1::connect(&dial).await.get("/hello", &[]).await.status,
        200
    );
}

/// Aim: HUP, USR1 and USR2 that come while the process still reads its files neither end it nor get lost. Fails if
/// signals are held only once something serves.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_signals_are_remembered() {
    let (block, dir) = (Block::claim(), tempfile::tempdir().expect("a folder"));
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let (more, fifo) = (dir.path().join("more.yaml"), dir.path().join("fifo"));
    let name = std::ffi::CString::new(more.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: mkfifo(3) reads the one string given.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let yaml = format!("include: [{}]\n{YAML}", more.display());
    let edge = Edge::start_unseen(&block, &yaml);
    // Opens only when the process reads the file, and holds it there.
    let mut hold = std::fs::OpenOptions::new();
    let hold = hold.write(true).custom_flags(libc::O_NONBLOCK);
    let held = deadline("a process that reads its files", async {
        loop {
            match hold.open(&more) {
                Ok(file) => return file,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
    .await;
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        edge.signal(signal);
    }
    // For the reload, and for the successor.
    std::fs::rename(&more, fifo).expect("rename");
    std::fs::write(&more, "drain_deadline: 1s\n").expect("write");
    drop(held);
    edge.wait_log("listener push on").await;
    edge.wait_log("upgrade: starting").await;
    edge.wait_log("configuration reloaded").await;
}

/// Aim: USR2 starts the program to which a link now points, by the path of the start. Fails if the process
/// resolves the link when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn usr2_follows_the_link() {
    let (block, dir) = (Block::claim(), tempfile::tempdir().expect("a folder"));
    let at = |name: &str| dir.path().join(name);
    for version in ["v1", "v2"] {
        std::fs::create_dir(at(version)).expect("a folder");
    }
    symlink(env!("CARGO_BIN_EXE_pushgate"), at("v1/pushgate")).expect("a link");
    let script = format!("#!/bin/sh\necho \"$0 $*\" > {}\n", at("started").display());
    std::fs::write(at("v2/pushgate"), script).expect("write");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(at("v2/pushgate"), executable).expect("chmod");
    symlink("v1", at("current")).expect("a link");
    let edge = Edge::start_by(&at("current/pushgate"), &block, YAML).await;
    symlink("v2", at("next")).expect("a link");
    std::fs::rename(at("next"), at("current")).expect("rename");
    edge.signal(libc::SIGUSR2);
    deadline("the new version", async {
        while !at("started").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // It ends with 0, which is no error of ours.
    edge.wait_log("upgrade: the successor has ended").await;
    assert!(!edge.log().contains("ERROR"), "{}", edge.log());
}

/// Aim: a second process with the same upgrade socket is refused while the first lives, also while it would get
/// every address; the first goes on. Fails if the second replaces the socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_rival_is_refused() {
    let setup = Setup::with(1, "", "upgrade_socket: up.sock\n").await;
    let mut rival = setup.edge.rival();
    assert_eq!(rival.ended().await.code(), Some(1));
    rival
        .wait_log("up.sock: another process serves there")
        .await;
    let mut successor = setup.edge.successor();
    setup.edge.wait_log("another process has taken over").await;
    assert!(successor.log().is_empty() || successor.pid() > 0);
    successor.signal(libc::SIGTERM);
    assert_eq!(successor.ended().await.code(), Some(0));
}

/// Aim: a successor takes nothing from a socket that another user owns. Fails if it asks for keys there.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_socket_is_refused() {
    let mut setup = Setup::with(1, "", "upgrade_socket: up.sock\n").await;
    let socket = setup.edge.path().with_file_name("up.sock");
    setup.edge.signal(libc::SIGTERM);
    setup.edge.ended().await;
    // It may have ended before it removed its socket.
    let _ = std::fs::remove_file(&socket);
    let _stranger = UnixListener::bind(&socket).expect("bind");
    if chown(&socket, Some(NOBODY), None).is_err() {
        return;
    }
    let mut successor = setup.edge.successor();
    assert_eq!(successor.ended().await.code(), Some(1));
    successor.wait_log("it belongs to user 65534").await;
}

/// Aim: `-d` writes the number of the process in the background, and removes the file at its end. Fails if the
/// file has the number of the process that was started, or stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_writes_its_number() {
    let (block, dir) = (Block::claim(), tempfile::tempdir().expect("a folder"));
    let (conf, file) = (dir.path().join("a.yaml"), dir.path().join("pid"));
    let yaml = format!(
        "pid_file: pid\nadmin: {{ bind: {} }}\n{YAML}",
        block.admin()
    );
    std::fs::write(&conf, block.map(&yaml)).expect("write");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
    let status = command.args(["run", "-d", "-c"]).arg(&conf).status();
    assert!(status.expect("the built program").success());
    let number = deadline("the file", async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                return text.trim().parse::<u32>().expect("a number");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(status_of(number, "Name:"), "pushgate");
    // SAFETY: kill(2) takes two integers; the process is the one that this test started.
    unsafe { libc::kill(number as i32, libc::SIGTERM) };
    deadline("its end", async {
        while file.exists() || Path::new(&format!("/proc/{number}/fd")).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Aim: a second TERM ends the process at once, and each live flow has its access line. Fails if the process
/// just exits.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_term_writes_access_lines() {
    let mut setup = Setup::start(1).await;
    let _secure = ws::connect(&setup.tls(), "/ws/silent", &[]).await;
    let _plain = ws::connect(&setup.plain(), "/ws/silent", &[]).await;
    setup.edge.signal(libc::SIGTERM);
    setup.edge.wait_log("draining").await;
    setup.edge.signal(libc::SIGTERM);
    assert_eq!(setup.edge.ended().await.code(), Some(0));
    let both = |lines: &[serde_json::Value]| lines.len() == 2;
    let lines = setup.edge.wait_access("two lines", both).await;
    assert!(lines.iter().all(|l| l["reason"] == "drained"), "{lines:?}");
}

/// Counts the threads of a process that are not those of user and group 65534, without capabilities.
fn with_rights(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let states =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let has_none = |text: &String| {
        let is = |line: &str| text.lines().any(|l| l == line);
        is("Uid:\t65534\t65534\t65534\t65534")
            && is("Gid:\t65534\t65534\t65534\t65534")
            && is("CapPrm:\t0000000000000000")
    };
    states.filter(|text| !has_none(text)).count()
}

/// Aim: with `user` a process of root gives its rights up, in every thread, and still reloads. Fails if one
/// thread keeps them, or if the files are read before and never again.
#[tokio::test(flavor = "multi_thread")]
async fn root_becomes_another_user() {
    // SAFETY: it takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let block = Block::claim();
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, &format!("user: nobody\n{YAML}")).await;
    // A thread that is ending keeps its rights until it has ended.
    deadline("threads without rights", async {
        while with_rights(edge.pid()) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let folder = edge.path().parent().expect("a folder").to_owned();
    for (mode, status) in [(0o700, 422), (0o755, 200)] {
        let rights = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&folder, rights).expect("chmod");
        let answer = edge.admin("POST", "/api/reload").await;
        assert_eq!(answer.status, status, "{mode:o}: {}", answer.text());
    }
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    assert_eq!(
        H1::connect(&dial).await.get("/hello", &[]).await.status,
        200
    );
}
