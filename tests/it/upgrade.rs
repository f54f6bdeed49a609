//! Binary upgrade: another process takes over the listening sockets while clients come and go.
//!
//! In: `-u` and SIGUSR2 under load. Out: refused connections (none), which flows live on, which state the
//! successor has, the exit codes. Source: FAULTS D69; Lightstreamer clustering §4.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::deadline;
use crate::setup::{Setup, yaml};

/// Log line of the predecessor when it stops accepting.
const OVER: &str = "another process has taken over";

/// Two nodes behind both VIPs, sticky by cookie and by address, ready for a successor.
async fn setup() -> Setup {
    let plugins = "[sticky_cookie: {}, sticky_ip: { table: all }]";
    Setup::with(2, plugins, "upgrade_socket: up.sock\n").await
}

/// Sends requests on new connections until `stop`.
fn asking(dial: Dial, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<()> {
    let stop = stop.clone();
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let answer = H1::connect(&dial).await.get("/hello", &[]).await;
            assert_eq!(answer.status, 200);
        }
    })
}

/// Aim: two upgrades in a row under load. No connection fails, and a WebSocket of the first process lives on.
/// The last process has the first one's cookies (signed with a random key), addresses and operator's order.
/// Each predecessor exits with 0 when its last flow has ended. Fails if sockets are bound anew, or if a
/// plugin's state is not handed over.
#[tokio::test(flavor = "multi_thread")]
async fn successors_refuse_nobody() {
    let setup = setup().await;
    let socket = setup.edge.path().with_file_name("up.sock");
    let mode = std::fs::metadata(&socket)
        .expect("the upgrade socket")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let first = H1::connect(&setup.tls()).await.get("/hello", &[]).await;
    let (pair, home) = (first.cookies()[0], first.node());
    let mut live = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    // From now on only stuck clients get there.
    let drain = format!("/api/nodes/{home}/drain");
    setup.edge.admin("POST", &drain).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = [asking(setup.plain(), &stop), asking(setup.tls(), &stop)];
    let second = setup.edge.successor();
    setup.edge.wait_log(OVER).await;
    let third = second.successor();
    second.wait_log(OVER).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request failed");
    }
    let again = [("Cookie", pair)];
    for _ in 0..8 {
        let answer = H1::connect(&setup.tls()).await.get("/hello", &again).await;
        assert_eq!((answer.node(), answer.cookies().len()), (home, 0));
        let answer = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
        assert_eq!(answer.node(), home);
    }
    let nodes = third.nodes().await;
    let mut nodes = nodes.as_array().into_iter().flatten();
    assert!(nodes.any(|n| n["name"] == home && n["state"] == "draining"));
    live.say("still here").await;
    assert_eq!(live.hear().await, "still here");
    drop(live);
    for mut old in [setup.edge, second] {
        assert_eq!(old.ended().await.code(), Some(0), "{}", old.log());
    }
    assert_eq!(third.admin("GET", "/readyz").await.status, 200);
}

/// Aim: a drain goes on in the next process with its deadline and rate: the node is Down in time, and its
/// flows there end one after the other. Fails if only the order is handed over: then the drain is endless.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_keeps_its_deadline_and_rate() {
    let mut setup = setup().await;
    let drain = "/api/nodes/n1/drain?deadline=5s&rate=4/s";
    let first = H1::connect(&setup.tls()).await.get("/hello", &[]).await;
    let (pair, home) = (first.cookies()[0], first.node());
    let ordered = Instant::now();
    let order = drain.replace("n1", home);
    assert_eq!(setup.edge.admin("POST", &order).await.status, 200);
    let second = setup.edge.successor();
    setup.edge.wait_log(OVER).await;
    assert_eq!(setup.edge.ended().await.code(), Some(0));
    let of_home = |nodes: &Value| {
        let mut nodes = nodes.as_array().into_iter().flatten();
        nodes
            .find(|n| n["name"] == home)
            .cloned()
            .unwrap_or_default()
    };
    let node = of_home(&second.nodes().await);
    assert_eq!(node["state"], "draining");
    let left = node["drain"]["deadline_seconds"].as_u64();
    assert!(left.is_some_and(|left| left < 5), "{node}");
    let stuck = [("Cookie", pair)];
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let socket = ws::connect(&setup.tls(), "/ws/silent", &stuck).await;
        assert_eq!(socket.node(), home);
        sockets.push(socket);
    }
    let down = |nodes: &Value| of_home(nodes)["state"] == "down";
    second.wait_nodes("the deadline", down).await;
    let late = ordered.elapsed();
    assert!(late >= Duration::from_secs(5), "{late:?}");
    let begun = Instant::now();
    for socket in &mut sockets {
        socket.ended().await;
    }
    // Four at 4/s: the last 0.75 s after the first.
    assert!(begun.elapsed() > Duration::from_millis(500), "at once");
}

/// Aim: a successor with a faulty file, one that breaks off, and one that requests nothing leave the running
/// process unchanged; the next good one takes over. Fails if the predecessor stops before its successor
/// serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_successor_changes_nothing() {
    let mut setup = setup().await;
    let good = std::fs::read_to_string(setup.edge.path()).expect("its file");
    std::fs::write(setup.edge.path(), good.replace("to: p\n", "to: q\n")).expect("write");
    let mut bad = setup.edge.successor();
    assert_eq!(bad.ended().await.code(), Some(1));
    // An address in use is found only after the sockets were handed over.
    let taken = std::net::TcpListener::bind(setup.block.at("200.0.0.30:80")).expect("bind");
    let more = setup.block.map("[200.0.0.30:80, 200.0.0.10:80]");
    let known = setup.block.map("[200.0.0.10:80]");
    std::fs::write(setup.edge.path(), good.replace(&known, &more)).expect("write");
    let mut bad = setup.edge.successor();
    assert_eq!(bad.ended().await.code(), Some(1));
    bad.wait_log("cannot bind").await;
    drop(taken);
    setup.edge.wait_log("this process goes on").await;
    drop(UnixStream::connect(setup.edge.path().with_file_name("up.sock")).expect("connect"));
    let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    assert_eq!(hello.status, 200);
    std::fs::write(setup.edge.path(), good).expect("write");
    let next = setup.edge.successor();
    assert_eq!(setup.edge.ended().await.code(), Some(0));
    let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    assert_eq!(hello.status, 200);
    drop(next);
}

/// Aim: a program that cannot take over says why and exits with 1. Fails if it binds beside the running
/// process.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_without_a_predecessor_fails() {
    let setup = Setup::start(1).await;
    for (more, why) in [
        ("", "the configuration has no upgrade_socket"),
        (
            "upgrade_socket: up.sock\n",
            "no running process to take over from",
        ),
    ] {
        let yaml = yaml(&setup.certs, 1, "", "") + more;
        setup.edge.rewrite(&setup.block, &yaml);
        let mut successor = setup.edge.successor();
        assert_eq!(successor.ended().await.code(), Some(1));
        successor.wait_log(why).await;
    }
}

/// Aim: SIGUSR2 makes the process start the program on disk, which takes over. A second SIGUSR2 during the
/// takeover does no harm. Fails if two processes serve, or none.
#[tokio::test(flavor = "multi_thread")]
async fn usr2_starts_a_successor() {
    let mut setup = setup().await;
    setup.edge.signal(libc::SIGUSR2);
    setup.edge.signal(libc::SIGUSR2);
    assert_eq!(setup.edge.ended().await.code(), Some(0));
    let log = setup.edge.log();
    let (_, pid) = log
        .split_once("handing over to process ")
        .expect("its number");
    let pid: i32 = pid
        .lines()
        .next()
        .expect("a line")
        .parse()
        .expect("a number");
    let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    assert_eq!(hello.status, 200);
    // SAFETY: kill(2) takes two integers; the process is the successor that our edge has started.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    deadline("a refused connection", async {
        while setup.plain().try_tcp().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
