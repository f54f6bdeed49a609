//! Certificates replaced under load, again and again, also by bad ones; reloads that the system refuses.
//!
//! In: clients that shake hands without pause, reloads by HUP, by the admin endpoint, broken files, and a limit of
//! descriptors. Out: no failed handshake, the right certificate after each, flat memory; nothing changed by a
//! reload that failed. `PUSHGATE_TEST_RELOADS` sets the rounds. Source: FAULTS D36, D67.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use openssl::x509::X509;
use serde_json::Value;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;
use crate::{deadline, tls_node};

const HOST: &str = "push.mycompany.com";
/// Rounds by default.
const ROUNDS: usize = 24;
/// Clients that shake hands at the same time.
const CLIENTS: usize = 4;
/// More is a leak, whatever the number of rounds: a reload that kept its certificates would take about 28 KiB
/// each time.
const GROWTH_BYTES: u64 = 12 * 1024 * 1024;

/// Handshakes so far, and whether to go on.
#[derive(Default)]
struct Shaken {
    good: AtomicUsize,
    ended: AtomicBool,
}

/// Connects one client after the other, each verified and served; panics at the first failure.
async fn clients(dial: Dial, shaken: Arc<Shaken>) {
    while !shaken.ended.load(Ordering::Relaxed) {
        let answer = H1::connect(&dial).await.get("/hello", &[]).await;
        assert_eq!(answer.status, 200);
        shaken.good.fetch_add(1, Ordering::Relaxed);
    }
}

/// A leaf with its key in one file, so that both are replaced in one step.
fn whole(certs: &Certs, word: &str) -> (Vec<u8>, Vec<u8>) {
    let leaf = certs.leaf(word, &[HOST], Key::Ecdsa);
    let read = |path: &Path| std::fs::read(path).expect("a file of the test");
    let pem = [read(&leaf.chain), read(&leaf.key)].concat();
    let der = X509::from_pem(&pem).and_then(|leaf| leaf.to_der());
    (pem, der.expect("DER"))
}

fn replace(file: &Path, bytes: &[u8]) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, bytes).expect("write");
    std::fs::rename(&fresh, file).expect("rename");
}

/// Aim: D36. Fails if a reload leaves a moment without a certificate, if a bad file is applied or removes the
/// old certificate, or if replaced certificates stay in memory.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_disturb_nobody() {
    let rounds = std::env::var("PUSHGATE_TEST_RELOADS").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let (block, certs) = (Block::claim(), Certs::new());
    let generations = [whole(&certs, "one"), whole(&certs, "two")];
    let file = certs.dir().join("served.pem");
    replace(&file, &generations[1].0);
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n  \
         served: {{ chain: {0}, key: {0} }}\nlisteners:\n  \
         - {{ name: push, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [served] }} }}\n",
        file.display()
    );
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, &yaml).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    let shaken = Arc::new(Shaken::default());
    let mut live = H1::connect(&dial).await;
    let loops: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(clients(dial.clone(), shaken.clone())))
        .collect();
    let mut settled = 0;
    for round in 0..rounds {
        let (pem, der) = &generations[round % 2];
        if round % 6 == 5 {
            replace(&file, b"half a fi");
            assert_eq!(edge.admin("POST", "/api/reload").await.status, 422);
            let old = &generations[(round + 1) % 2].1;
            assert!(tls_node::shown(&dial).await == *old, "the old one stays");
        }
        replace(&file, pem);
        if round % 2 == 0 {
            edge.signal(libc::SIGHUP);
        } else {
            assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
        }
        deadline("the new certificate", async {
            while tls_node::shown(&dial).await != *der {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        if round == rounds / 3 {
            settled = edge.rss();
        }
    }
    shaken.ended.store(true, Ordering::Relaxed);
    for one in loops {
        one.await.expect("every handshake succeeds");
    }
    assert_eq!(live.get("/hello", &[]).await.status, 200, "live goes on");
    let (good, now) = (shaken.good.load(Ordering::Relaxed), edge.rss());
    println!("{rounds} reloads, {good} handshakes, {settled} then {now} bytes");
    assert!(good > rounds, "{good} handshakes");
    assert!(now < settled + GROWTH_BYTES, "{settled} then {now} bytes");
}

/// What an operator sees of nodes, pools, listeners and certificates, without what time alone changes.
async fn state(operator: &mut H1) -> String {
    let mut all = Vec::new();
    for what in ["nodes", "pools", "listeners", "certificates"] {
        let text = operator.get(&format!("/api/{what}"), &[]).await.text();
        let mut shown: Value = serde_json::from_str(&text).expect("JSON");
        for one in shown.as_array_mut().expect("a list") {
            let one = one.as_object_mut().expect("an object");
            one.retain(|key, _| {
                !matches!(key.as_str(), "state_seconds" | "flows_total" | "days_left")
            });
        }
        all.push(shown.to_string());
    }
    all.join("\n")
}

/// Lets `edge` open `left` more descriptors, or again as many as it could at first.
pub fn leave_descriptors(edge: &Edge, left: usize, most: u64) {
    let open = std::fs::read_dir(format!("/proc/{}/fd", edge.pid())).expect("its descriptors");
    let open = open.filter_map(|fd| fd.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let open: std::collections::BTreeSet<u64> = open.collect();
    let nth = (0..most).filter(|fd| !open.contains(fd)).nth(left);
    let limit = libc::rlimit {
        rlim_cur: nth.unwrap_or(most),
        rlim_max: most,
    };
    let pid = edge.pid() as i32;
    // SAFETY: prlimit(2) reads the one struct given; the child is not yet waited for.
    let rc = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

/// Aim: a reload that fails, at whichever of its steps, leaves nodes, pools, listeners and certificates as they
/// were: one descriptor more is left each time, until there are enough. Source: FAULTS D67. Fails if anything is
/// put in force before the last socket is ready to accept: the new node serves behind the old address.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_at_any_step_changes_nothing() {
    const MOST: u64 = 1024;
    let (block, certs) = (Block::claim(), Certs::new());
    let [old, new] = [whole(&certs, "one"), whole(&certs, "two")];
    let files = ["old.pem", "new.pem"].map(|name| certs.dir().join(name));
    replace(&files[0], &old.0);
    replace(&files[1], &new.0);
    let yaml = |node: &str, file: &Path, binds: &str, more: &str| {
        format!(
            "threads: 2\nnodes: {{ {node} }}\npools: {{ p: {{ nodes: [{}] }} }}\n\
             certificates:\n  served: {{ chain: {1}, key: {1} }}\nlisteners:\n  \
             - {{ name: plain, bind: {binds}, mode: http, to: p }}\n  \
             - {{ name: tls, bind: [200.0.0.10:443], mode: http, to: p, tls: {{ certificates: [served] }} }}\n{more}",
            &node[..2],
            file.display()
        )
    };
    let before = yaml(
        "n1: { address: 10.0.0.1:8080 }",
        &files[0],
        "[200.0.0.10:80]",
        "",
    );
    let after = yaml(
        "n2: { address: 10.0.0.2:8080 }",
        &files[1],
        "[200.0.0.10:80, 200.0.0.20:80]",
        "  - { name: more, bind: [200.0.0.30:80], mode: tcp, to: p }\n",
    );
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let _n2 = Node::start("n2", block.at("10.0.0.2:8080")).await;
    let edge = Edge::start_limited(&block, &before, MOST).await;
    let plain = Dial::plain(block.at("200.0.0.10:80"));
    let tls = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    let fresh = ["200.0.0.20:80", "200.0.0.30:80"].map(|at| Dial::plain(block.at(at)));
    let mut operator = H1::connect(&Dial::plain(block.admin())).await;
    let was = state(&mut operator).await;
    edge.rewrite(&block, &after);
    let mut left = 0;
    loop {
        leave_descriptors(&edge, left, MOST);
        let answer = operator.request("POST", "/api/reload", &[], b"").await;
        leave_descriptors(&edge, usize::MAX, MOST);
        if answer.status == 200 {
            break;
        }
        let why = answer.text();
        println!("{left} left: {}", why.trim());
        assert_eq!(answer.status, 422, "{left} left: {why}");
        assert_eq!(state(&mut operator).await, was, "{left} left: {why}");
        let served = H1::connect(&plain).await.get("/hello", &[]).await;
        assert_eq!(served.node(), "n1", "{left} left: {why}");
        assert!(tls_node::shown(&tls).await == old.1, "{left} left: {why}");
        for dial in &fresh {
            assert!(dial.try_tcp().await.is_err(), "{left} left: {why}");
        }
        left += 1;
    }
    // Two sockets and, for each, those of its accept loops on two threads.
    assert!(left > 6, "only {left} steps");
    assert_ne!(state(&mut operator).await, was);
    for dial in fresh.iter().chain([&plain]) {
        let served = H1::connect(dial).await.get("/hello", &[]).await;
        assert_eq!(served.node(), "n2");
    }
    assert!(tls_node::shown(&tls).await == new.1);
}

/// Bytes that the edge has read from files and sockets, since its start.
fn has_read(edge: &Edge) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", edge.pid())).expect("/proc");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.expect("rchar").parse().expect("a number")
}

/// Aim: a reload reads only the certificates whose files have changed, and serves the changed one. Fails if a reload
/// reads all (5,000 certificates take 4 s), or takes a changed file for an unchanged one.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_what_has_changed() {
    let (block, certs) = (Block::claim(), Certs::new());
    let names: Vec<_> = (0..40).map(|i| format!("host{i}")).collect();
    let dir = certs.dir().display().to_string();
    let mut blocks = String::new();
    let mut files = 0;
    for name in &names {
        let leaf = certs.leaf(name, &[&format!("{name}.test")], Key::Ecdsa);
        for file in [leaf.chain, leaf.key] {
            files += std::fs::metadata(file).expect("a file").len();
        }
        blocks += &format!("  {name}: {{ chain: {dir}/{name}.pem, key: {dir}/{name}.key }}\n");
    }
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n{blocks}listeners:\n  \
         - {{ name: push, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [{}] }} }}\n",
        names.join(", ")
    );
    // Files that have just changed are read each time, see `credentials::Mark`.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let edge = Edge::start_unready(&block, &yaml).await;
    let dial = |host: &str| Dial::tls(block.at("200.0.0.10:443"), host, certs.ca());
    let old = tls_node::shown(&dial("host1.test")).await;
    let before = has_read(&edge);
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    let read = has_read(&edge) - before;
    assert!(read < files / 2, "{read} of {files} bytes");
    certs.leaf("host0", &["host0.test"], Key::Ecdsa);
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    let shown = tls_node::shown(&dial("host0.test")).await;
    assert_eq!(shown, certs.der("host0.pem"));
    assert_eq!(tls_node::shown(&dial("host1.test")).await, old);
}
