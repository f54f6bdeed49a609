//! One direction between real sockets, and the size lines of its chunks.

use super::*;
use crate::stream::fixtures::{pair_with, tls_pair};
use crate::stream::socket;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A read of 64 KiB goes to a TLS sink as four records, and no byte waits. Before, three quarters were
/// allocated, copied and written later. Fails if only the first record is written at once.
#[tokio::test]
async fn a_large_read_is_not_kept() {
    let ((mut node, mut source), (client, mut sink)) = (pair_with(1 << 20).await, tls_pair().await);
    let read = tokio::spawn(async move {
        let mut client = client;
        client.read_exact(&mut vec![0; MAX_READ]).await.map(drop)
    });
    node.write_all(&vec![7; MAX_READ]).await.expect("send");
    while socket::unread(source.tcp().expect("a socket").fd()) < MAX_READ as u64 {
        tokio::task::yield_now().await;
    }
    let mut down = Direction::new(false, MAX_READ, false);
    let passed = poll_fn(|cx| {
        ready!(source.poll_readable(cx)).expect("readable");
        down.read_and_pass(cx, &mut source, &mut sink)
    });
    passed.await.expect("a read");
    assert_eq!((down.passed(), down.held()), (MAX_READ as u64, 0));
    read.await.expect("a client").expect("all of it");
}

/// Fails if a chunk's size is wrong, or longer than its room.
#[test]
fn sizes_of_chunks() {
    let chunks = Direction {
        wrap: Wrap::Chunks,
        ..Direction::new(true, MAX_READ, false)
    };
    for n in [1, 9, 10, 15, 16, 255, 4096, MAX_READ] {
        let mut line = [0; SIZE_LINE];
        let from = chunks.size_line(n, &mut line);
        assert_eq!(line[from..], *format!("{n:x}\r\n").as_bytes());
    }
    let as_is = Direction::new(true, MAX_READ, false);
    assert_eq!(as_is.size_line(5, &mut [0; SIZE_LINE]), SIZE_LINE);
}
