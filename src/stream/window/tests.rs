//! A direction's window on real sockets, and what makes it grow.

use std::future::pending;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::observe::end_reason::EndReason;
use crate::stream::fixtures::{pair, pair_with, tls_pair};
use crate::stream::relay::{Relay, Relaying, Rules};
use crate::stream::socket::{self, Options, Tcp};

/// The default `max_hidden`, and its unsent allowance.
const HIDDEN: u64 = 32 << 10;
const MOST: usize = 8 << 10;

/// Fails if a silent flow pays for the bulk of others: with a larger `Window` its relay grows.
#[test]
fn a_small_window_is_small() {
    assert_eq!(size_of::<Window>(), 2 * size_of::<usize>());
    assert!(size_of::<crate::stream::direction::Direction>() <= 128);
}

/// Fails if messages make a window large: their node would notice a slow client later.
#[test]
fn only_bulk_grows() {
    let cases: [(&str, bool, usize, Vec<usize>, bool); 6] = [
        ("bulk", true, MOST, vec![MOST; 16], true),
        (
            "bulk in odd pieces",
            true,
            MOST,
            [8192, 2048, 6144, 4096].repeat(4),
            true,
        ),
        ("too few reads", true, MOST, vec![MOST; 15], false),
        ("messages", true, MOST, vec![3000; 1000], false),
        ("not wished", false, MOST, vec![MOST; 100], false),
        (
            "large as it is",
            true,
            256 << 10,
            vec![64 << 10; 100],
            false,
        ),
    ];
    for (name, bulk, most, reads, large) in cases {
        let mut window = Window::new(bulk, most);
        reads.into_iter().for_each(|n| window.saw(n, most));
        assert_eq!(window.budget.is_some(), large, "{name}");
    }
    let mut slow = Window::new(true, MOST);
    slow.saw(MOST, MOST);
    slow.since_ms = slow.since_ms.wrapping_sub(BULK_WITHIN_MS + 1);
    (1..BULK_READS).for_each(|_| slow.saw(MOST, MOST));
    assert!(slow.budget.is_none(), "one message of 8 KiB now and then");
}

/// A node, and the relay's socket to it, connected with the options for bulk.
async fn node() -> (TcpStream, Side) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let options = Options {
        keepalive: Duration::from_secs(60),
        receive_buffer: Some(socket::receive_buffer(HIDDEN)),
        bulk: true,
        source: None,
    };
    let to = listener.local_addr().expect("bound");
    let ours = socket::connect(to, &options).await.expect("connect");
    let node = listener.accept().await.expect("accept").0;
    (node, Side::Plain(Tcp::new(ours)))
}

/// Fails if the window overlooks a large buffer that bulk left on the connection: a node could send as much
/// again for each answer.
#[tokio::test]
async fn a_large_buffer_that_was_left_is_seen() {
    let ((_node, source), (_client, sink)) = (node().await, pair().await);
    kernel::set_receive_buffer(source.tcp().expect("a socket").stream(), 256 << 10);
    let mut window = Window::new(true, MOST);
    let mut read = || window.before_read((&source, &sink), MOST, MOST, false);
    assert_eq!((read(), read()), (MOST, MOST));
    assert_eq!(window.most(MOST), 128 << 10);
}

/// Makes a node write all it can; returns the count of its bytes, and its task.
fn flood(mut node: TcpStream) -> (Arc<AtomicU64>, JoinHandle<()>) {
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let task = tokio::spawn(async move {
        while let Ok(n) = node.write(&[7; 4096]).await {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    });
    (written, task)
}

/// Reads 64 MiB of a flood as `client`, then stops. Returns the widest buffer on the way, and the bytes that
/// proxy and kernel hold for the client once all is still.
async fn stopped<C>(client: C, raw: OwnedFd, inner: Side) -> (usize, u64)
where
    C: tokio::io::AsyncRead + Unpin,
{
    let (node, n) = node().await;
    let ours = n
        .tcp()
        .expect("a socket")
        .stream()
        .as_fd()
        .try_clone_to_owned()
        .expect("a descriptor");
    let node_fd = node.as_fd().try_clone_to_owned().expect("a descriptor");
    let (written, flood) = flood(node);
    let rules = Rules {
        unsent: socket::unsent_allowance(HIDDEN),
        bulk: true,
    };
    let relay = Relay::layer4(inner, n, rules);
    let relay = tokio::spawn(Relaying::new(relay, pending::<EndReason>()));
    let (mut client, mut piece, mut got, mut widest) = (client, vec![0; 64 << 10], 0, 0);
    while got < 64 << 20 {
        let read = tokio::time::timeout(Duration::from_secs(10), client.read(&mut piece));
        got += read.await.expect("bulk").expect("bulk") as u64;
        widest = widest.max(kernel::receive_buffer(&ours));
    }
    let held = || {
        let sent = written.load(Ordering::Relaxed) - kernel::unacknowledged(node_fd.as_raw_fd());
        sent.saturating_sub(got + kernel::unread(raw.as_raw_fd()))
    };
    // Half a second without progress is a stall: every hop is on this machine. A segment that the client's
    // kernel dropped may come seconds later, because its retransmission backs off.
    let (mut last, begun) = ((0, 0), Instant::now());
    let late = || begun.elapsed() > Duration::from_secs(10);
    while last != (written.load(Ordering::Relaxed), held()) || (last.1 > HIDDEN && !late()) {
        last = (written.load(Ordering::Relaxed), held());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    flood.abort();
    relay.abort();
    (widest, last.1)
}

/// Aim: bulk gets a large window, and a client that stops leaves no more than `max_hidden` bytes held. Fails
/// if the window does not grow, or grows beyond what the client's kernel promised.
#[tokio::test]
async fn bulk_hides_no_more_than_messages() {
    let (client, inner) = pair_with(256 << 10).await;
    let raw = client.as_fd().try_clone_to_owned().expect("a descriptor");
    let plain = stopped(client, raw, inner).await;
    let (client, inner) = tls_pair().await;
    let raw = client
        .get_ref()
        .as_fd()
        .try_clone_to_owned()
        .expect("a descriptor");
    let tls = stopped(client, raw, inner).await;
    println!("widest buffer, bytes held: {plain:?}, TLS {tls:?}");
    for (widest, held) in [plain, tls] {
        assert!(widest >= 64 << 10, "{widest} bytes at most");
        assert!(held <= HIDDEN, "{held} bytes held");
    }
}
