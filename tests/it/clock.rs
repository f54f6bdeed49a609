//! A machine whose wall clock is set while the edge runs.
//!
//! In: a preloaded library that adds seconds to CLOCK_REALTIME, and to no other clock. Out: which node each
//! client is recalled to, across steps of an hour, a rebalance and a binary upgrade. Source: FAULTS D48.
//! Needs a C compiler, as the build does.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::rebalance::age::pair;
use crate::setup::{HOST, node, yaml};
use crate::vip::Block;

/// The library: the kernel's clock plus the seconds in the file's first eight bytes.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long *ahead;
__attribute__((constructor)) static void look(void) {
    const char *path = getenv("PUSHGATE_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) ahead = at;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    int rc = syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && id == CLOCK_REALTIME && ahead) t->tv_sec += *ahead;
    return rc;
}
"#;

/// A wall clock that can be set.
struct Clock {
    file: File,
    path: PathBuf,
    library: PathBuf,
    _dir: tempfile::TempDir,
}

impl Clock {
    fn new() -> Clock {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let (source, library, path) = (at("shim.c"), at("shim.so"), at("ahead"));
        std::fs::write(&source, SHIM).expect("write");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source);
        let made = cc
            .status()
            .expect("a C compiler: tests/setup.sh test brings one");
        assert!(made.success(), "cc: {made}");
        std::fs::write(&path, [0; 8]).expect("write");
        let file = File::options().write(true).open(&path).expect("its file");
        Clock {
            file,
            path,
            library,
            _dir: dir,
        }
    }

    /// Sets the clock `ahead` seconds before or after the true time, for every process under it.
    fn set(&self, ahead: i64) {
        let bytes = ahead.to_ne_bytes();
        self.file.write_all_at(&bytes, 0).expect("write");
    }

    /// Environment variables of a process under this clock.
    fn env(&self) -> [(&str, &str); 2] {
        let [path, library] = [&self.path, &self.library].map(|p| p.to_str().expect("UTF-8"));
        [("PUSHGATE_TEST_CLOCK", path), ("LD_PRELOAD", library)]
    }
}

/// Two nodes and an edge under a clock that can be set.
struct Rig {
    clock: Clock,
    block: Block,
    edge: Edge,
    _nodes: [Node; 2],
    _certs: Certs,
}

impl Rig {
    async fn start(plugins: &str) -> Rig {
        let (block, certs, clock) = (Block::claim(), Certs::new(), Clock::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let nodes = [node(&block, 1).await, node(&block, 2).await];
        let more = "    balance: round_robin\nupgrade_socket: up.sock\n";
        let yaml = yaml(&certs, 2, plugins, more);
        let edge = Edge::start_with(&block, &yaml, &clock.env()).await;
        Rig {
            clock,
            block,
            edge,
            _nodes: nodes,
            _certs: certs,
        }
    }

    /// Client number `client` sends a request with `cookie`. Returns the node, and the cookie to use from now
    /// on.
    async fn visit(&self, client: u8, cookie: &str) -> (String, String) {
        let dial = Dial::plain(self.block.at("200.0.0.10:80")).host(HOST);
        let dial = dial.from(self.block.client(client));
        let headers = [("Cookie", cookie)];
        let answer = H1::connect(&dial).await.get("/hello", &headers).await;
        let set = answer.cookies();
        let cookie = match set.is_empty() {
            true => cookie.to_owned(),
            false => pair(&set),
        };
        (answer.node().to_owned(), cookie)
    }

    /// The client reaches its node and gets no other cookie, four times in a row.
    async fn stays(&self, client: u8, home: &(String, String), when: &str) {
        for _ in 0..4 {
            let now = self.visit(client, &home.1).await;
            assert_eq!(&now, home, "client {client}, {when}");
        }
    }

    /// Forgets every assignment to `n1` up to now.
    async fn forget_n1(&self) {
        let order = "/api/pools/p/rebalance?from=n1&share=100%25&rate=10000/s";
        assert_eq!(self.edge.admin("POST", order).await.status, 202);
        deadline("its end", async {
            let state = || self.edge.admin("GET", "/api/pools/p/rebalance");
            while !state().await.text().contains("\"done\"") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Aim: D48. The clock is set an hour back, right again, and an hour forward. Clients from before and from in
/// between keep their nodes, although an assignment lives for ten minutes only. Fails if assignment
/// timestamps follow the wall clock.
#[tokio::test(flavor = "multi_thread")]
async fn clock_steps_of_an_hour_move_no_client() {
    let rig = Rig::start("[sticky_cookie: { max_age: 10m, jitter: 0% }]").await;
    let first = rig.visit(1, "none=1").await;
    assert!(first.1.starts_with("PUSHGATE="), "{first:?}");
    rig.clock.set(-3_600);
    rig.stays(1, &first, "an hour back").await;
    rig.edge.wait_log("wall clock jumped back 3600 s").await;
    let second = rig.visit(2, "none=1").await;
    rig.stays(2, &second, "an hour back").await;
    rig.clock.set(0);
    rig.stays(1, &first, "right again").await;
    rig.stays(2, &second, "right again").await;
    rig.clock.set(3_600);
    let third = rig.visit(3, "none=1").await;
    rig.clock.set(0);
    for (client, home) in [(1, &first), (2, &second), (3, &third)] {
        rig.stays(client, home, "after an hour forward").await;
    }
}

/// Aim: the clock is set back after a rebalance. The rebalance does not forget clients that are assigned
/// after that, in this process or the next, by cookie or by table. Fails if new assignments are dated before
/// the rebalance.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_back_does_not_rebalance_again() {
    for plugins in ["[sticky_cookie: {}]", "[sticky_ip: {}]"] {
        let mut rig = Rig::start(plugins).await;
        rig.visit(1, "none=1").await;
        rig.forget_n1().await;
        rig.clock.set(-3_600);
        let mut homes = Vec::new();
        for client in 10..14 {
            homes.push((client, rig.visit(client, "none=1").await));
        }
        assert!(homes.iter().any(|(_, (node, _))| node == "n1"), "{plugins}");
        for (client, home) in &homes {
            rig.stays(*client, home, plugins).await;
        }
        let next = rig.edge.successor_with(&rig.clock.env());
        assert_eq!(rig.edge.ended().await.code(), Some(0), "{}", rig.edge.log());
        rig.edge = next;
        for client in 20..24 {
            homes.push((client, rig.visit(client, "none=1").await));
        }
        for (client, home) in &homes {
            let when = format!("in the next process, {plugins}");
            rig.stays(*client, home, &when).await;
        }
    }
}
