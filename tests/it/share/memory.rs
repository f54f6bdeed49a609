//! `memory.limit`, of a cgroup and of the process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{CLOSED_IDLE, REFUSED, Rig, come};
use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::{Dial, handshake};
use crate::deadline;
use crate::edge::Edge;
use crate::setup::{self, HOST};
use crate::vip::Block;

/// A cgroup of this test; dropping it removes it.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes a group that may use `bytes`. `None`: this machine lets nobody make one.
    fn new(bytes: u64) -> Option<Cgroup> {
        let name = format!("pushgate-test-{}", std::process::id());
        for (mount, limit) in [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ] {
            let group = Cgroup(Path::new(mount).join(&name));
            // Elsewhere the folder is no cgroup, and the file would be made.
            let is_there = Path::new(mount).join("cgroup.procs").exists();
            let make = || {
                std::fs::create_dir(&group.0)?;
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(group.0.join(limit))
                    .and_then(|mut file| file.write_all(bytes.to_string().as_bytes()))
            };
            if is_there && make().is_ok() {
                return Some(group);
            }
        }
        eprintln!("skipped: no cgroup can be made here");
        None
    }

    /// Moves a process into the group.
    fn take(&self, pid: u32) {
        let moved = std::fs::write(self.0.join("cgroup.procs"), pid.to_string());
        moved.expect("a process of ours");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes may take a moment to end.
        for _ in 0..1000 {
            if std::fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Another process of the group, which holds `mib` MiB until it is dropped.
struct Balloon(Child);

impl Balloon {
    fn blow(group: &Cgroup, mib: u32) -> Balloon {
        // It allocates when it is told, so that its memory is the group's.
        let program = format!("input(); held = b'x' * ({mib} << 20); input()");
        let child = Command::new("python3")
            .args(["-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.expect("python3");
        group.take(child.id());
        let stdin = child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"\n").expect("it lives");
        Balloon(child)
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Aim: the cgroup's memory goes above the limit. New clients are closed and counted, live streams go on, the
/// admin endpoint answers, and clients are taken again when memory is free. Fails if the machine's memory is
/// asked instead, if nobody measures, or if the state stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_cgroup_takes_no_new_clients() {
    let Some(group) = Cgroup::new(400 << 20) else {
        return;
    };
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let _node = setup::node(&block, 1).await;
    let yaml = format!(
        "memory: {{ limit: 50% }}\n{}",
        setup::yaml(&certs, 1, "", "")
    );
    let edge = Edge::start_in(&block, &yaml, group.0.join("cgroup.procs")).await;
    let limit = edge.metric("pushgate_memory_limit_bytes").await;
    assert_eq!(limit, f64::from(200 << 20));
    let plain = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    let mut live = H1::stream(&plain).await;
    let balloon = Balloon::blow(&group, 240);
    edge.wait_metric("pushgate_memory_bytes", |used| used > limit)
        .await;
    assert!(deadline("its end", H1::connect(&plain).await.ended()).await);
    let refused = |n: f64| n >= 1.0;
    edge.wait_metric("pushgate_connections_refused_total", refused)
        .await;
    live.lives(5).await;
    assert_eq!(edge.admin("GET", "/healthz").await.status, 200);
    edge.wait_log("above memory.limit (200 MiB); new clients are refused")
        .await;
    drop(balloon);
    edge.wait_metric("pushgate_memory_bytes", |used| used < limit * 0.9)
        .await;
    come(&plain).await;
    live.lives(5).await;
}

/// Aim: a limit in bytes holds for the process itself, and idle connections make room. Fails if only a share is
/// measured.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_in_bytes_holds() {
    let rig = Rig::start("memory: { limit: 4GiB }\n", "", None).await;
    let mut kept = come(&rig.plain(1)).await;
    assert_eq!(kept.get("/hello", &[]).await.status, 200);
    let used = rig.edge.metric("pushgate_memory_bytes").await;
    assert!(used > rig.edge.rss() as f64 / 2.0, "{used}");
    assert_eq!(rig.edge.metric(CLOSED_IDLE).await, 0.0);
    assert_eq!(rig.edge.metric(REFUSED).await, 0.0);
    // Room for some hundred idle connections, however much the program itself takes.
    let limit = format!("memory: {{ limit: {}MiB }}\n", (used as u64 >> 20) + 8);
    let full = Rig::start(&limit, "", None).await;
    let mut live = H1::stream(&full.plain(1)).await;
    let mut held = Vec::new();
    while full.edge.metric(REFUSED).await == 0.0 {
        assert!(held.len() < 4000, "{} bytes", full.edge.rss());
        for _ in 0..20 {
            // The end is refused while it shakes hands.
            let hello = full.tls(1).tcp().await;
            let shaken = Dial::tls(full.block.at("200.0.0.10:443"), HOST, full.certs.ca());
            held.push(handshake(hello, &shaken.tls.expect("TLS")).await);
        }
    }
    full.counted(REFUSED, "memory", 1.0).await;
    full.counted(CLOSED_IDLE, "memory", 1.0).await;
    live.lives(5).await;
}
