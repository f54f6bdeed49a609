//! Requests of every shape, pipelined, cut by their clients, by evictions and by reloads.
//!
//! In: seeds. Node and client derive the same request from a seed: method, body, framing, the split of its
//! bytes. Out: 0 lost, 0 crossed (an answer for another request), 0 falsely whole (a node reads a body that
//! its client did not finish). Source: RFC 9112 §6, §7.1, §9.3.2; Lightstreamer clustering §1.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use parking_lot::Mutex;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::node::{Conn, Request};
use crate::setup::{HOST, Setup};

/// Most requests sent at once on a connection.
const PIPELINE: usize = 6;
const CLIENTS: u64 = 32;
/// Requests by default.
const REQUESTS: u64 = 4000;
/// A client notices an eviction's cut within this time.
const SETTLED: Duration = Duration::from_millis(50);

/// Body of the request `seed`; empty for a GET.
fn body(seed: u64) -> Vec<u8> {
    let mut r = fastrand::Rng::with_seed(seed);
    let size = match r.u8(..40) {
        0 => r.usize(20_000..80_000),
        1..8 => r.usize(1000..8000),
        8..28 => r.usize(1..1000),
        _ => 0,
    };
    let mut body = vec![0; size];
    r.fill(&mut body);
    body
}

/// Bytes of the request `seed`.
fn wire(seed: u64) -> Vec<u8> {
    let body = body(seed);
    let mut r = fastrand::Rng::with_seed(!seed);
    let (method, field, framed) = match (body.is_empty(), r.bool()) {
        (true, true) => ("GET", String::new(), Vec::new()),
        (true, false) => ("POST", "Content-Length: 0\r\n".to_owned(), Vec::new()),
        (false, true) => ("POST", format!("Content-Length: {}\r\n", body.len()), body),
        (false, false) => {
            let framed = [super::chunks(&body, &mut r), super::last_chunk(&mut r)].concat();
            ("POST", "Transfer-Encoding: chunked\r\n".to_owned(), framed)
        }
    };
    let head = format!("{method} /soak/echo?seed={seed} HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n");
    [head.as_bytes(), &framed].concat()
}

/// The node's side: returns the body, under the request's seed. It counts a body that differs from the
/// client's, because the client may have left before it could notice.
pub async fn serve(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let seed = request.number("seed", 0);
    let expected = body(seed);
    if request.body != expected {
        conn.shared.falsely_whole.fetch_add(1, Ordering::Relaxed);
    }
    let mut r = fastrand::Rng::with_seed(seed ^ 1);
    let (field, framed) = match r.bool() {
        true => (
            "Transfer-Encoding: chunked".to_owned(),
            [super::chunks(&expected, &mut r), super::last_chunk(&mut r)].concat(),
        ),
        false => (format!("Content-Length: {}", expected.len()), expected),
    };
    let head = format!("HTTP/1.1 200 OK\r\nX-Seed: {seed}\r\n{field}\r\n\r\n");
    conn.send([head.as_bytes(), &framed].concat()).await?;
    Ok(true)
}

/// Counters of all clients.
#[derive(Default)]
struct Count {
    answered: AtomicU64,
    /// Sent, but not answered because of an eviction.
    cut: AtomicU64,
    /// Given up by their clients.
    aborted: AtomicU64,
    evictions_begun: AtomicU64,
    evictions_done: AtomicU64,
    reloads: AtomicU64,
}

/// One client: sends its requests in pipelines of random depth, on as few connections as their ends allow.
async fn client(dial: Dial, seeds: Vec<u64>, count: Arc<Count>) {
    let mut r = fastrand::Rng::with_seed(seeds.first().copied().unwrap_or_default());
    let mut kept = None;
    let mut left = &seeds[..];
    while !left.is_empty() {
        let (now, later) = left.split_at(r.usize(1..=PIPELINE).min(left.len()));
        left = later;
        let before = count.evictions_done.load(Ordering::SeqCst);
        let mut pair = match kept.take() {
            Some(pair) => pair,
            None => connect(&dial).await,
        };
        let bytes: Vec<u8> = now.iter().flat_map(|seed| wire(*seed)).collect();
        let aborts = (r.u8(..12) == 0).then(|| r.usize(..bytes.len()));
        let (answered, why) = batch(
            &mut pair,
            now,
            &bytes[..aborts.unwrap_or(bytes.len())],
            &mut r,
            aborts.is_some(),
        )
        .await;
        let calm = count.evictions_begun.load(Ordering::SeqCst) == before;
        let missing = (now.len() - answered) as u64;
        let lost = calm && aborts.is_none() && missing > 0;
        assert!(
            !lost,
            "{answered} of {} answered, from seed {}: {why}",
            now.len(),
            now[0]
        );
        count.answered.fetch_add(answered as u64, Ordering::Relaxed);
        let counter = if aborts.is_some() {
            &count.aborted
        } else {
            &count.cut
        };
        counter.fetch_add(missing, Ordering::Relaxed);
        if missing == 0 && aborts.is_none() {
            kept = Some(pair);
        }
    }
}

/// Both halves of a connection: the client reads answers while it writes requests, or both sides would block.
type Pair = (H1, Box<dyn AsyncWrite + Send + Unpin>);

async fn connect(dial: &Dial) -> Pair {
    let (read, write) = tokio::io::split(dial.io().await);
    let read = tokio::io::join(read, tokio::io::sink());
    (H1::over(Box::new(read)), Box::new(write))
}

/// Sends `bytes` in random pieces and reads the answers of `seeds`. Returns how many arrived, and why no more
/// did. A client that aborts reads until it has sent its part, and leaves.
async fn batch(
    pair: &mut Pair,
    seeds: &[u64],
    bytes: &[u8],
    r: &mut fastrand::Rng,
    aborts: bool,
) -> (usize, String) {
    let (answers, requests) = pair;
    let send = async {
        let mut left = bytes;
        while !left.is_empty() {
            let most = [50, 2000, 100_000][r.usize(..3)];
            let (now, later) = left.split_at(r.usize(1..=most).min(left.len()));
            left = later;
            // An eviction may end the connection; answers before it count.
            if requests.write_all(now).await.is_err() || requests.flush().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (answered, why) = (AtomicU64::new(0), Mutex::default());
    let read = async {
        for seed in seeds {
            if let Err(e) = read(answers, *seed).await {
                *why.lock() = e;
                return;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    match aborts {
        true => tokio::select! {
            () = send => {}
            () = read => {}
        },
        false => drop(tokio::join!(send, read)),
    }
    (answered.into_inner() as usize, why.into_inner())
}

/// Reads the answer to `seed`. Panics at an answer to another request.
///
/// Errors: the connection ended instead, or the edge answered that it has no node.
async fn read(answers: &mut H1, seed: u64) -> Result<(), String> {
    let head = answers.head().await.map_err(|e| format!("no head: {e}"))?;
    if matches!(head.status, 502 | 503) {
        return Err(format!("answered {}", head.status));
    }
    assert_eq!(head.status, 200, "seed {seed}: {:?}", head.headers);
    let told = head.header("x-seed").map(str::to_owned);
    assert_eq!(told, Some(seed.to_string()), "crossed");
    let got = answers
        .rest()
        .await
        .map_err(|e| format!("half a body: {e}"))?;
    assert!(
        got == body(seed),
        "seed {seed}: {} bytes are not its body",
        got.len()
    );
    Ok(())
}

/// Evicts a node and reloads a changed file, in turn.
async fn disturb(setup: &Setup, count: &Count) {
    let path = setup.edge.path();
    let first = std::fs::read_to_string(&path).expect("the file");
    let other = first.replace("  p:\n", "  p:\n    balance: round_robin\n");
    assert_ne!(first, other);
    for n in 0.. {
        // The interval of the disturbance; waits for no event.
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::write(&path, if n % 2 == 0 { &other } else { &first }).expect("write the file");
        assert_eq!(setup.edge.admin("POST", "/api/reload").await.status, 200);
        count.reloads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        count.evictions_begun.fetch_add(1, Ordering::SeqCst);
        setup
            .edge
            .admin("POST", &format!("/api/nodes/n{}/evict", n % 2 + 1))
            .await;
        tokio::time::sleep(SETTLED).await;
        count.evictions_done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Aim: 4,000 requests, or as many as `PUSHGATE_TEST_REQUESTS` says (1,000,000 for the full proof), with
/// bodies of all kinds, pipelined, one batch in twelve given up half-way, one client in five over TLS.
/// Meanwhile nodes are evicted and the file is reloaded. Fails if a request is not answered although nothing
/// cut it, if an answer belongs to another request, or if a node reads as whole a body that its client did
/// not send.
#[tokio::test(flavor = "multi_thread")]
async fn requests_survive_everything() {
    let asked = std::env::var("PUSHGATE_TEST_REQUESTS").ok();
    let requests = asked.and_then(|n| n.parse().ok()).unwrap_or(REQUESTS);
    let setup = Setup::start(2).await;
    let count = Arc::new(Count::default());
    let clients = super::shared_out(&setup, CLIENTS, requests)
        .map(|(dial, seeds)| tokio::spawn(client(dial, seeds, count.clone())));
    let clients: Vec<_> = clients.collect();
    let began = Instant::now();
    tokio::select! {
        () = disturb(&setup, &count) => {}
        all = futures_util::future::join_all(clients) => all.into_iter().for_each(|c| c.expect("a client's requests")),
    }
    let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let falsely_whole: u64 = setup.nodes.iter().map(|n| n.falsely_whole()).sum();
    println!(
        "{requests} requests in {:.1?}: {} answered, {} cut by {} evictions, {} given up by clients, {} reloads, \
         0 lost, 0 crossed, {falsely_whole} falsely whole",
        began.elapsed(),
        of(&count.answered),
        of(&count.cut),
        of(&count.evictions_done),
        of(&count.aborted),
        of(&count.reloads),
    );
    assert_eq!(falsely_whole, 0, "bodies that no client sent");
    assert_eq!(
        of(&count.answered) + of(&count.cut) + of(&count.aborted),
        requests
    );
    assert!(of(&count.answered) > requests / 2 && of(&count.aborted) > requests / 100);
}
