//! Streamed answers of every shape, one after the other on persistent connections, cut from every side.
//!
//! In: seeds. Node and client derive the same answer from a seed: framing, chunks, extensions, trailers, the
//! split into writes, pauses, and the end. Out: 0 lost, 0 reordered, 0 falsely completed, and the next
//! request on the same connection is answered. Source: Lightstreamer clustering §1; Diffusion load balancers,
//! "Reuse TCP connection"; RFC 9112 §6, §7.1.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::node::{Conn, Request};
use crate::setup::Setup;

/// Requests with bodies, pipelined and cut.
pub mod uploads;

/// How an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Chunked,
    Length,
    Close,
}

/// How the node ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// FIN within the body.
    Fin,
    /// RST within the body.
    Reset,
    /// Bytes that are not a chunk, where a chunk should begin.
    Fault,
}

/// One answer.
struct Plan {
    end: End,
    body: Vec<u8>,
    head: String,
    /// The framed body, up to its cut.
    wire: Vec<u8>,
    /// End of each part, and the pause before it.
    splits: Vec<(usize, Duration)>,
    /// The client leaves after this many bytes of the body.
    client_leaves: Option<usize>,
    http10: bool,
    /// The next request is sent with this one.
    pipelined: bool,
}

impl Plan {
    fn of(seed: u64) -> Plan {
        let mut r = fastrand::Rng::with_seed(seed);
        let framing = [
            Framing::Chunked,
            Framing::Chunked,
            Framing::Length,
            Framing::Close,
        ][r.usize(..4)];
        let mut end = match r.u8(..20) {
            0..2 => End::Fin,
            2..4 => End::Reset,
            4 => End::Fault,
            _ => End::Whole,
        };
        if framing != Framing::Chunked && end == End::Fault {
            end = End::Whole;
        }
        if framing == Framing::Close && end == End::Fin {
            end = End::Reset;
        }
        let size = match r.u8(..20) {
            0 => r.usize(20_000..100_000),
            1..6 => r.usize(1000..8000),
            _ => r.usize(1..1000),
        };
        let body: Vec<u8> = (0..size).map(|_| r.u8(..)).collect();
        let mut wire = match (framing, end) {
            (Framing::Chunked, End::Fault) => {
                let some = r.usize(..=size);
                [&chunks(&body[..some], &mut r)[..], b"zz\r\n"].concat()
            }
            (Framing::Chunked, _) => [chunks(&body, &mut r), last_chunk(&mut r)].concat(),
            _ => body.clone(),
        };
        if matches!(end, End::Fin | End::Reset) {
            wire.truncate(r.usize(..wire.len()));
        }
        let splits = splits(wire.len(), &mut r);
        Plan {
            end,
            head: head(framing, size),
            wire,
            splits,
            client_leaves: (r.u8(..12) == 0).then(|| r.usize(..size)),
            http10: r.u8(..20) == 0,
            pipelined: r.u8(..3) == 0,
            body,
        }
    }
}

fn head(framing: Framing, size: usize) -> String {
    let framing = match framing {
        Framing::Chunked => "Transfer-Encoding: chunked".to_owned(),
        Framing::Length => format!("Content-Length: {size}"),
        Framing::Close => "Connection: close".to_owned(),
    };
    format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")
}

/// `body` in chunks of any size, some with an extension.
fn chunks(body: &[u8], r: &mut fastrand::Rng) -> Vec<u8> {
    let (mut wire, mut left) = (Vec::new(), body);
    while !left.is_empty() {
        let most = [10, 200, 5000][r.usize(..3)];
        let n = r.usize(1..=most).min(left.len());
        let extension = if r.u8(..8) == 0 { ";a=\"b\"" } else { "" };
        wire.extend(format!("{n:x}{extension}\r\n").bytes());
        wire.extend(&left[..n]);
        wire.extend(b"\r\n");
        left = &left[n..];
    }
    wire
}

/// The last chunk, sometimes with trailers.
fn last_chunk(r: &mut fastrand::Rng) -> Vec<u8> {
    let trailers = if r.u8(..4) == 0 { "X-Sum: 1\r\n" } else { "" };
    format!("0\r\n{trailers}\r\n").into_bytes()
}

/// Ends of the parts of `len` bytes, and the pause before each. The first may leave with the head.
fn splits(len: usize, r: &mut fastrand::Rng) -> Vec<(usize, Duration)> {
    let mut ends: Vec<usize> = (0..r.usize(..6)).map(|_| r.usize(..=len)).collect();
    ends.push(len);
    ends.sort_unstable();
    let pause = |r: &mut fastrand::Rng| Duration::from_millis(r.u64(..4).saturating_sub(1));
    ends.into_iter().map(|end| (end, pause(r))).collect()
}

/// The node's side: `/soak?seed=N`. False if the connection must end after it.
pub async fn serve(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let plan = Plan::of(request.number("seed", 0));
    let mut out = plan.head.clone().into_bytes();
    let mut from = 0;
    for (end, pause) in &plan.splits {
        if !pause.is_zero() {
            conn.send(&out).await?;
            out.clear();
            tokio::time::sleep(*pause).await;
        }
        out.extend(&plan.wire[from..*end]);
        from = *end;
    }
    conn.send(&out).await?;
    match plan.end {
        End::Whole => Ok(!plan.head.contains("close")),
        End::Reset => {
            conn.reset_on_drop();
            Err(io::ErrorKind::ConnectionReset.into())
        }
        End::Fin | End::Fault => Ok(false),
    }
}

/// Counters of all clients.
#[derive(Default)]
struct Count {
    whole: AtomicU64,
    cut: AtomicU64,
    left: AtomicU64,
    ordinary: AtomicU64,
    evictions_begun: AtomicU64,
    evictions_done: AtomicU64,
}

/// A client's view of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Whole,
    Cut,
    Left,
}

/// One client: requests the answers of `seeds`, on as few connections as their ends allow.
async fn client(dial: Dial, seeds: Vec<u64>, count: Arc<Count>) {
    let mut kept = None;
    for seed in seeds {
        let plan = Plan::of(seed);
        let before = count.evictions_done.load(Ordering::SeqCst);
        let mut io = match kept.take() {
            Some(io) => io,
            None => H1::connect(&dial).await,
        };
        let seen = match plan.http10 {
            true => old(&dial, seed, &plan).await,
            false => modern(&mut io, seed, &plan).await,
        };
        let ordinary = seen == Seen::Whole && (plan.http10 || ordinary(&mut io, &plan).await);
        let calm = count.evictions_begun.load(Ordering::SeqCst) == before;
        let counter = match seen {
            Seen::Whole => &count.whole,
            Seen::Cut => &count.cut,
            Seen::Left => &count.left,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let lost = calm && plan.end == End::Whole && seen == Seen::Cut;
        assert!(!lost, "seed {seed}: a whole answer was cut");
        let unanswered = calm && seen == Seen::Whole && !ordinary;
        assert!(!unanswered, "seed {seed}: no answer to the next request");
        if ordinary {
            count.ordinary.fetch_add(1, Ordering::Relaxed);
            kept = Some(io);
        }
    }
}

/// Requests the answer of `seed` over HTTP/1.1 and reads it according to `plan`.
async fn modern(io: &mut H1, seed: u64, plan: &Plan) -> Seen {
    let next = if plan.pipelined { HELLO } else { "" };
    let request =
        format!("GET /soak?seed={seed} HTTP/1.1\r\nHost: push.mycompany.com\r\n\r\n{next}");
    if io.raw(request.as_bytes()).await.is_err() {
        return Seen::Cut;
    }
    match io.head().await {
        Ok(head) if head.status == 200 => {}
        // The node reset before its head was read, and so did the next: 502.
        _ => return Seen::Cut,
    }
    let mut got = Vec::new();
    loop {
        match io.piece().await {
            Ok(Some(piece)) => got.extend(piece),
            Ok(None) => return judge(seed, plan, &got, true),
            Err(_) => return judge(seed, plan, &got, false),
        }
        if plan.client_leaves.is_some_and(|n| got.len() > n) {
            return Seen::Left;
        }
    }
}

/// As [`modern`], over HTTP/1.0 on a new connection, whose end is the answer's.
async fn old(dial: &Dial, seed: u64, plan: &Plan) -> Seen {
    let mut io = H1::connect(dial).await;
    let request = format!("GET /soak?seed={seed} HTTP/1.0\r\nHost: push.mycompany.com\r\n\r\n");
    io.raw(request.as_bytes()).await.expect("send");
    let mut got = Vec::new();
    let end = crate::deadline("the end", io.io.read_to_end(&mut got)).await;
    let Some(at) = memchr::memmem::find(&got, b"\r\n\r\n") else {
        return Seen::Cut;
    };
    let head = String::from_utf8_lossy(&got[..at]).to_ascii_lowercase();
    if head.split(' ').nth(1) != Some("200") {
        return Seen::Cut;
    }
    assert!(!head.contains("transfer-encoding"), "{head}");
    let body = &got[at + 4..];
    // With a length a FIN may be a cut; without one it is the end.
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|l| l.split('\r').next());
    let whole = match length.and_then(|l| l.parse::<usize>().ok()) {
        Some(length) => body.len() == length,
        None => end.is_ok(),
    };
    judge(seed, plan, body, whole)
}

/// Asserts that `got` is a part of the answer, and all of it if it looks whole.
fn judge(seed: u64, plan: &Plan, got: &[u8], whole: bool) -> Seen {
    let what = (seed, plan.end, &plan.head);
    assert!(
        plan.body.starts_with(got),
        "bytes of another answer, or none: {what:?}"
    );
    if whole {
        assert_eq!(got.len(), plan.body.len(), "falsely completed: {what:?}");
        assert_eq!(plan.end, End::Whole, "falsely completed: {what:?}");
        return Seen::Whole;
    }
    Seen::Cut
}

/// Sends an ordinary request after a whole answer, on the same connection.
async fn ordinary(io: &mut H1, plan: &Plan) -> bool {
    if !plan.pipelined && io.raw(HELLO.as_bytes()).await.is_err() {
        return false;
    }
    match io.head().await {
        Ok(head) => {
            let body = io.rest().await.unwrap_or_default();
            head.status == 200 && body.starts_with(b"n")
        }
        Err(_) => false,
    }
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: push.mycompany.com\r\n\r\n";

/// Divides the seeds 0 to `all` among `clients`; one client in five uses TLS.
fn shared_out(
    setup: &Setup,
    clients: u64,
    all: u64,
) -> impl Iterator<Item = (Dial, Vec<u64>)> + '_ {
    (0..clients).map(move |n| {
        let dial = match n % 5 {
            0 => setup.tls(),
            _ => setup.plain(),
        };
        (dial, (n..all).step_by(clients as usize).collect())
    })
}

/// Aim: 2,000 streamed answers, or as many as `PUSHGATE_TEST_STREAMS` says (100,000 for the full proof), to
/// 64 clients, one in five over TLS, while both nodes are evicted again and again. Fails if an answer is
/// lost, changed or falsely completed, if the next request on its connection is not answered, or if an access
/// line is missing.
#[tokio::test(flavor = "multi_thread")]
async fn streamed_answers_survive_everything() {
    let asked = std::env::var("PUSHGATE_TEST_STREAMS").ok();
    let streams = asked.and_then(|s| s.parse().ok()).unwrap_or(2000u64);
    let setup = Setup::start(2).await;
    let count = Arc::new(Count::default());
    let clients = shared_out(&setup, CLIENTS, streams)
        .map(|(dial, seeds)| tokio::spawn(client(dial, seeds, count.clone())));
    let clients: Vec<_> = clients.collect();
    let began = Instant::now();
    let evicting = async {
        for n in 0.. {
            tokio::time::sleep(Duration::from_millis(150)).await;
            count.evictions_begun.fetch_add(1, Ordering::SeqCst);
            let path = format!("/api/nodes/n{}/evict", n % 2 + 1);
            setup.edge.admin("POST", &path).await;
            // A client notices a cut within this time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            count.evictions_done.fetch_add(1, Ordering::SeqCst);
        }
    };
    tokio::select! {
        () = evicting => {}
        all = futures_util::future::join_all(clients) => all.into_iter().for_each(|c| c.expect("a client's answers")),
    }
    let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
    println!(
        "{streams} streamed answers in {:.1?}: {} whole, {} cut, {} left by the client, {} ordinary requests behind them, {} evictions",
        began.elapsed(),
        of(&count.whole),
        of(&count.cut),
        of(&count.left),
        of(&count.ordinary),
        of(&count.evictions_done),
    );
    assert_eq!(of(&count.whole) + of(&count.cut) + of(&count.left), streams);
    assert!(of(&count.whole) > streams / 2 && of(&count.cut) > streams / 20);
    let done = |l: &&serde_json::Value| l["path"] == "/soak" && l["reason"] == "done";
    let told =
        |all: &[serde_json::Value]| all.iter().filter(done).count() as u64 >= of(&count.whole);
    setup
        .edge
        .wait_access("a line of each whole answer", told)
        .await;
}

/// Concurrent clients.
const CLIENTS: u64 = 64;
