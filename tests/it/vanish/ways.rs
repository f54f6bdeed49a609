//! Flows whose clients leave in every way, whatever their nodes do and whatever carries the bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::*;
use crate::layer4::descriptors;
use case::{Case, Way};

mod case;

/// `user_timeout` of the clients.
const LIMIT: Duration = Duration::from_secs(3);
/// Time in which a flow must end once its client has left.
const GONE: Duration = Duration::from_secs(LIMIT.as_secs() + 5);
/// Flows of each case; PUSHGATE_TEST_FLOWS sets another number.
const EACH: usize = 20;
/// First port of the listeners, one for each case.
const PORT: u16 = 7000;

/// Aim: a flow ends with its client, at each layer, in each way to leave, whatever the node does: all are gone
/// within `user_timeout` + 5 s, with their descriptors. The nodes never close a connection. A client that only
/// sends FIN and reads on keeps its flow. Fails if the edge notices an end only where it reads or writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_ends_with_its_client() {
    if skipped() {
        return;
    }
    let each = std::env::var("PUSHGATE_TEST_FLOWS").map_or(EACH, |n| n.parse().expect("a number"));
    let (cases, finish) = (Case::all(), Arc::new(Notify::new()));
    allow_descriptors((2 * cases.len() * each + 1000) as u64);
    let (stays, cut) = (Host::new(), Host::new());
    // Its machine forgets a connection that its program has closed; by default after 60 s.
    stays.forget_closed_after(1);
    let host = |case: &Case| if case.is_cut() { &cut } else { &stays };
    let yaml = yaml(&cases, host, &finish).await;
    let block = Block::claim();
    let edge = Edge::start(&block, &yaml).await;
    flows(&edge).await;
    let before = descriptors(&edge);

    let clients = cases.iter().zip(PORT..).map(|(case, port)| async move {
        let mut clients = Vec::new();
        for _ in 0..each {
            clients.push(case.client(host(case), port).await);
        }
        clients
    });
    let clients = join_all(clients).await;
    let of_all = |flows: &BTreeMap<String, u64>| flows.values().all(|n| *n == each as u64);
    assert!(of_all(&flows(&edge).await), "{:?}", flows(&edge).await);

    let leaving = Instant::now();
    let (mut left, mut vanished) = (Vec::new(), Vec::new());
    let clients = cases.iter().zip(clients);
    let finished = clients.map(|(case, mut clients)| async move {
        for client in &mut clients {
            case.finish(client).await;
        }
        (case, clients)
    });
    for (case, clients) in join_all(finished).await {
        match case.way {
            Way::HalfClose => left.extend(clients),
            _ if case.is_cut() => vanished.extend(clients),
            _ => clients.into_iter().for_each(|client| case.leave(client)),
        }
    }
    cut.swallow();
    let begun = Instant::now();
    println!("left within {:.1?}", begun - leaving);
    let ends = ends(&edge, &cases, before + 2 * left.len(), begun).await;
    println!("{} flows", cases.len() * each);
    for (name, after) in ends {
        println!("{name}: gone after {after:.1?}");
    }
    // Bounded hold: beyond the limit and two rounds of the watch.
    tokio::time::sleep_until((begun + LIMIT + Duration::from_secs(2)).into()).await;
    let mut kept = flows(&edge).await;
    kept.retain(|name, _| name.starts_with("HalfClose"));
    assert!(of_all(&kept), "{kept:?}");
    finish.notify_waiters();
    for mut client in left {
        let mut got = Vec::new();
        let read = deadline("its answer", client.read_to_end(&mut got)).await;
        assert!(read.is_ok() && got.ends_with(b"bye"), "{read:?}");
    }
    drop(vanished);
}

/// Waits until the flows of all cases but the half-closed are gone, with all but `most` descriptors. Returns
/// when each case was.
async fn ends(
    edge: &Edge,
    cases: &[Case],
    most: usize,
    begun: Instant,
) -> BTreeMap<String, Duration> {
    let mut ends = BTreeMap::new();
    let leaving = cases.iter().filter(|c| c.way != Way::HalfClose).count();
    loop {
        let now = flows(edge).await;
        for (name, _) in now.iter().filter(|(_, n)| **n == 0) {
            ends.entry(name.clone()).or_insert_with(|| begun.elapsed());
        }
        let open = descriptors(edge);
        // Connections of the admin endpoint, and pipes that the edge keeps.
        if ends.len() == leaving && open <= most + 8 {
            return ends;
        }
        let left = now.iter().filter(|(_, n)| **n > 0);
        let left: Vec<_> = left.collect();
        assert!(
            begun.elapsed() < GONE,
            "{open} descriptors of {most}; flows left: {left:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Flows by case.
async fn flows(edge: &Edge) -> BTreeMap<String, u64> {
    let nodes = edge.nodes().await;
    let all = nodes.as_array().expect("a list").iter();
    let one = |n: &serde_json::Value| Some((n["name"].as_str()?.to_owned(), n["flows"].as_u64()?));
    all.map(|n| one(n).expect("a node")).collect()
}

/// Starts a node for each case, with a listener of its own.
async fn yaml<'h>(
    cases: &[Case],
    host: impl Fn(&Case) -> &'h Host,
    finish: &Arc<Notify>,
) -> String {
    let (mut nodes, mut pools, mut listeners) = (String::new(), String::new(), String::new());
    for (case, port) in cases.iter().zip(PORT..) {
        let name = format!("{:?}_{:?}_{:?}", case.way, case.does, case.layer);
        let mode = match case.layer {
            case::Layer::Four => "tcp",
            case::Layer::WebSocket | case::Layer::Upload => "http",
        };
        let (at, node) = (host(case).here, case.node(finish).await);
        nodes += &format!("  {name}: {{ address: '127.0.0.1:{node}' }}\n");
        pools += &format!("  of_{name}: {{ nodes: [{name}] }}\n");
        listeners += &format!(
            "  - {{ name: {name}, bind: ['{at}:{port}'], mode: {mode}, to: of_{name}, \
             tcp: {{ keepalive: 1s, user_timeout: {}s }} }}\n",
            LIMIT.as_secs()
        );
    }
    format!("nodes:\n{nodes}pools:\n{pools}listeners:\n{listeners}")
}

/// Allows this process, and the edge that it starts, as many descriptors.
fn allow_descriptors(most: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls take the one struct given.
    let rc = unsafe {
        let got = libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_cur.max(most);
        limit.rlim_max = limit.rlim_max.max(most);
        got | libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(rc, 0, "{most} descriptors: {error}");
}
