//! Measures hidden bytes of a stopped HTTP/2 stream, whatever windows its client announced.
//!
//! In: clients that read their socket and give no more windows, or that do not read it. Out: bytes that the
//! node could write beyond those on the client's side, which are in the client's process and in its socket's
//! receive buffer. Source: Lightstreamer clustering §1 (TCP back-pressure); RFC 9113 §5.2, §6.9.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// A client's socket that can be stopped; then it reads nothing.
struct Gate {
    io: Box<dyn Io>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    read: AtomicU64,
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.shared.stopped.load(Ordering::Relaxed) {
            // The gate stays shut to the test's end.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let more = (buf.filled().len() - before) as u64;
        self.shared.read.fetch_add(more, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A client that announced `windows` for a stream and for the connection.
struct Client {
    h2: H2,
    shared: Arc<Shared>,
    here: SocketAddr,
    to: SocketAddr,
}

impl Client {
    async fn connect(dial: &Dial, windows: (u32, u32), rcvbuf: Option<u32>) -> Client {
        let mut dial = dial.clone();
        dial.rcvbuf = rcvbuf;
        let mut tls = dial.tls.clone().expect("HTTP/2 is spoken over TLS");
        tls.alpn = b"\x02h2";
        let tcp = dial.tcp().await;
        let here = tcp.local_addr().expect("connected");
        let io = Box::new(handshake(tcp, &tls).await.expect("a handshake"));
        let shared = Arc::new(Shared::default());
        let gate = Gate {
            io,
            shared: shared.clone(),
        };
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(windows.0);
        builder.initial_connection_window_size(windows.1);
        Client {
            h2: H2::with(&builder, gate, "https", &dial.host).await,
            shared,
            here,
            to: dial.to,
        }
    }

    /// Bytes on the client's side: read, and in its receive buffer.
    fn has(&self) -> u64 {
        let unread = kernel::unread(self.here, self.to).expect("a connection");
        self.shared.read.load(Ordering::Relaxed) + u64::from(unread)
    }
}

/// Windows of a stream and of its connection: Chromium's, and the largest possible.
const WINDOWS: [(&str, u32, u32); 2] = [
    ("6 MiB, 15 MiB", 6 << 20, 15 << 20),
    ("2^31-1", i32::MAX as u32, i32::MAX as u32),
];
/// Most hidden bytes of each stopped stream; seen: 12 to 28 KiB.
const MOST_EACH: u64 = 64 << 10;
/// Streams of a connection with several.
const SEVERAL: u64 = 4;

/// Requests of a flood, by framing.
const PATHS: [&str; 2] = [
    "/flood?sndbuf=2048&framing=length",
    "/flood?sndbuf=2048&framing=chunked",
];

/// Waits until a flood has begun beyond `before`, and then stalls. Returns the bytes that the node has
/// written.
async fn stalled(node: &Node, before: u64) -> u64 {
    deadline("the flood", async {
        while node.flooded() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stalled(QUIET).await - before
}

/// Aim: a client that stops reading its socket stalls its node, whatever windows it announced and however
/// large its receive buffer. At most 64 KiB of each stream are neither at the node nor at the client. Fails
/// if a stream reads its node while the connection's socket takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_socket_hides_little_of_each_stream() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, stream, connection) in WINDOWS {
        for rcvbuf in [Some(8 << 10), None] {
            for (path, streams) in [(PATHS[0], 1), (PATHS[1], 1), (PATHS[0], SEVERAL)] {
                let windows = (stream, connection);
                let mut client = Client::connect(&setup.tls(), windows, rcvbuf).await;
                // After an answer, the settings have been exchanged.
                client.h2.get("/hello", &[]).await;
                client.shared.stopped.store(true, Ordering::Relaxed);
                let (had, before) = (client.has(), node.flooded());
                let mut kept = Vec::new();
                for _ in 0..streams {
                    kept.push(client.h2.begin(path).await);
                }
                let written = stalled(node, before).await;
                let hidden = written.saturating_sub(client.has() - had);
                let what = format!("{name}, {rcvbuf:?}, {path}, {streams} streams");
                println!("{what}: {written} bytes, hidden {hidden}");
                assert!(hidden <= MOST_EACH * streams, "{what}: {hidden}");
            }
        }
    }
}

/// Aim: a client reads its socket but gives a stream no more window. The stream's node stalls after the
/// window and at most 64 KiB more; a sibling with its own window goes on. With the largest windows the edge
/// hides nothing: the whole flood reaches the client's process. Fails if a stream reads its node while it has
/// no window.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_window_hides_little() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for path in PATHS {
        let windows = (6 << 20, 15 << 20);
        let mut client = Client::connect(&setup.tls(), windows, None).await;
        let before = node.flooded();
        let answer = client.h2.open(path, &[]).await.expect("a head");
        let written = stalled(node, before).await;
        let hidden = written.saturating_sub(u64::from(windows.0));
        println!("window 6 MiB, {path}: hidden {hidden}");
        assert!(hidden <= MOST_EACH, "{path}: {hidden}");
        assert_eq!(client.h2.get("/hello", &[]).await.status(), 200);
        drop(answer);
    }
    let most = i32::MAX as u32;
    let mut client = Client::connect(&setup.tls(), (most, most), None).await;
    let before = node.flooded();
    let path = format!("{}&bytes={}", PATHS[0], 32 << 20);
    let answer = client.h2.open(&path, &[]).await.expect("a head");
    deadline("all of it", async {
        while node.flooded() - before < 32 << 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while client.shared.read.load(Ordering::Relaxed) < 32 << 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(answer);
}

/// Connections, and stalled streams on each.
const CONNECTIONS: usize = 20;
const STREAMS: usize = 100;
/// Most memory of the edge for each stalled stream; seen: 10 KiB.
const MOST_MEMORY: u64 = 24 << 10;

/// The edge's memory in bytes: its own, and its part of what is shared (PSS).
fn pss(edge: &Edge) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", edge.pid());
    let rollup = std::fs::read_to_string(path).expect("the edge's memory");
    let line = rollup.lines().find(|l| l.starts_with("Pss:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a number") << 10
}

/// Aim: 20 connections with 100 stalled streams each cost the edge little memory, with sockets that are not
/// read and Chromium's windows. Fails if a stalled stream keeps a buffer besides the bytes that wait.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_stalled_streams_cost_little() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let before = pss(&setup.edge);
    let (mut clients, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(&setup.tls(), (6 << 20, 15 << 20), Some(8 << 10)).await;
        client.h2.get("/hello", &[]).await;
        client.shared.stopped.store(true, Ordering::Relaxed);
        for _ in 0..STREAMS {
            kept.push(client.h2.begin(PATHS[0]).await);
        }
        clients.push(client);
    }
    let all = |s: &crate::node::Seen| s.open_now() >= CONNECTIONS * STREAMS;
    node.wait("all streams", all).await;
    stalled(node, 0).await;
    let more = pss(&setup.edge).saturating_sub(before);
    let each = more / (CONNECTIONS * STREAMS) as u64;
    println!(
        "PSS {} MiB, then {} MiB more, {each} bytes a stream",
        before >> 20,
        more >> 20
    );
    assert!(each <= MOST_MEMORY, "{each} bytes a stream");
}
