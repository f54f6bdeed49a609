//! A request on its way to its node, before its answer and beside it.

use super::*;
use crate::stream::direction::MAX_COPY;

impl Ends {
    /// Waits for more of the answer's head while `meanwhile` runs at both ends. Returns the bytes read.
    async fn while_waiting(
        &mut self,
        meanwhile: impl AsyncFnOnce(&mut TcpStream, &mut TcpStream),
    ) -> Result<Vec<u8>, EndReason> {
        let (relay, mut got) = (&mut self.relay, Vec::new());
        let more = poll_fn(|cx| relay.poll_answer(cx, &mut got));
        let others = meanwhile(&mut self.client, &mut self.node);
        let (read, ()) = soon("an answer", async { tokio::join!(more, others) }).await;
        read.map(|()| got)
    }
}

/// Fails if a byte of the body is lost, doubled or late at any split, or if a byte after it reaches the node.
#[tokio::test]
async fn the_body_goes_up_while_the_answer_is_awaited() {
    let chunked = b"2;a\r\nhi\r\n0\r\n\r\n";
    for (framing, body) in [
        (Framing::length(4), &b"body"[..]),
        (Framing::chunked(), chunked),
    ] {
        for at in 0..=body.len() {
            let mut ends = Ends::asked(framing.clone(), &body[..at]).await;
            assert_eq!(take(&mut ends.node, at).await, body[..at]);
            let read = ends.while_waiting(async |client, node| {
                for byte in &body[at..] {
                    client.write_all(&[*byte]).await.unwrap();
                    assert_eq!(take(node, 1).await, [*byte], "at once");
                }
                client.write_all(b"GET").await.unwrap();
                node.write_all(HEAD).await.unwrap();
            });
            assert_eq!(read.await.unwrap(), HEAD);
            let relay = ends.relay;
            assert!(relay.request_is_sent());
            assert_eq!(relay.body_sent(), body.len() as u64);
            let (_, ahead) = relay.into_client();
            assert!(b"GET".starts_with(&ahead[..]), "{ahead:?}");
            let mut more = Vec::new();
            soon("FIN", ends.node.read_to_end(&mut more)).await.unwrap();
            assert!(more.is_empty(), "{more:?} behind the request");
        }
    }
}

/// Fails if a part of a request counts as the whole, or the whole as a part. After an answer to a part, the
/// connection would be used again.
#[tokio::test]
async fn a_request_is_whole_at_its_last_byte() {
    let cases: [(Framing, &[u8], &[u8], bool); 8] = [
        (Framing::Done, b"", b"", true),
        (Framing::Done, b"GET", b"", true),
        (Framing::length(4), b"bod", b"", false),
        (Framing::length(4), b"body", b"", true),
        (Framing::length(4), b"bo", b"dy", true),
        (Framing::chunked(), b"4\r\nbody\r\n", b"", false),
        (Framing::chunked(), b"4\r\nbody\r\n", b"0\r\n", false),
        (Framing::chunked(), b"4\r\nbody\r\n", b"0\r\n\r\n", true),
    ];
    for (framing, ahead, more, whole) in cases {
        let name = format!("{framing:?} {ahead:?} {more:?}");
        let sent = if framing.is_done() { 0 } else { ahead.len() };
        let mut ends = Ends::asked(framing, ahead).await;
        take(&mut ends.node, sent).await;
        let read = ends.while_waiting(async |client, node| {
            client.write_all(more).await.unwrap();
            take(node, more.len()).await;
            node.write_all(HEAD).await.unwrap();
        });
        read.await.unwrap();
        assert_eq!(ends.relay.request_is_sent(), whole, "{name}");
        ends.answer((Framing::Done, Wrap::AsIs), b"", true)
            .await
            .unwrap();
        let kept = ends.relay.into_sides().2;
        assert_eq!(kept.is_some(), whole, "{name}");
    }
}

/// Fails if the wait goes on although no answer can come, or if it blames the wrong side.
#[tokio::test]
async fn a_wait_without_an_answer_has_its_reason() {
    let legal = Ends::asked(Framing::chunked(), b"1\r\n").await;
    let mut illegal = Ends::new(Framing::chunked(), false).await;
    let sent = illegal.send(b"body").await;
    assert!(matches!(sent, Err(DirectionError::Framing(_))), "{sent:?}");
    let cases: [(Ends, &str, EndReason); 5] = [
        (legal, "body", EndReason::BadRequest),
        (
            Ends::asked(Framing::length(4), b"").await,
            "FIN",
            EndReason::ClientClosed,
        ),
        (
            Ends::asked(Framing::Done, b"").await,
            "FIN",
            EndReason::ClientClosed,
        ),
        (
            Ends::asked(Framing::Done, b"").await,
            "RST",
            EndReason::ClientFailed,
        ),
        (
            Ends::asked(Framing::length(4), b"").await,
            "node",
            EndReason::NodeFailed,
        ),
    ];
    for (mut ends, what, reason) in cases {
        let read = ends.while_waiting(async |client, node| match what {
            "FIN" => client.shutdown().await.unwrap(),
            "RST" => {
                client.set_zero_linger().unwrap();
                *client = pair().await.0;
            }
            "node" => node.shutdown().await.unwrap(),
            bytes => client.write_all(bytes.as_bytes()).await.unwrap(),
        });
        assert_eq!(read.await.unwrap_err(), reason, "{what}");
    }
}

/// Back-pressure: a node is not read while its client takes no interim answers (1xx), and the request still
/// goes up. Fails if the node is read meanwhile, or if an interim answer is lost.
#[tokio::test]
async fn interim_answers_wait_for_their_client() {
    let mut ends = Ends::asked(Framing::length(4), b"").await;
    socket2::SockRef::from(&ends.client)
        .set_recv_buffer_size(4096)
        .unwrap();
    let interim = [b'i'; 16 << 10];
    let mut told = 0;
    let mut full = 0;
    while full < 2 {
        let relay = &mut ends.relay;
        let passed = poll_fn(|cx| Poll::Ready(relay.interim(cx, &interim))).await;
        passed.expect("the client is connected");
        told += interim.len();
        full += usize::from(ends.relay.down.held() > 0);
    }
    ends.node.write_all(HEAD).await.unwrap();
    ends.client.write_all(b"body").await.unwrap();
    // Holds for 200 ms, in which the node could be read: no event proves that it is not.
    let mut got = Vec::new();
    let relay = &mut ends.relay;
    let more = poll_fn(|cx| relay.poll_answer(cx, &mut got));
    let early = tokio::time::timeout(Duration::from_millis(200), more).await;
    assert!(early.is_err() && got.is_empty(), "{early:?}");
    assert!(ends.relay.request_is_sent());
    assert_eq!(take(&mut ends.node, 4).await, b"body");
    let read = ends.while_waiting(async |client, _| {
        assert!(take(client, told).await.iter().all(|b| *b == b'i'));
    });
    assert_eq!(read.await.unwrap(), HEAD);
    ends.answer((Framing::Done, Wrap::AsIs), b"", false)
        .await
        .unwrap();
    assert_eq!(take(&mut ends.client, HEAD.len()).await, HEAD);
    assert_eq!(ends.relay.bytes().1, (told + HEAD.len()) as u64);
}

/// An answer begins before its request is whole. Fails if one stops at the end of the other, or if either
/// connection is lost.
#[tokio::test]
async fn an_early_answer_and_its_request_both_end() {
    let mut ends = Ends::asked(Framing::length(8), b"12").await;
    ends.answer((Framing::length(5), Wrap::AsIs), b"he", false)
        .await
        .unwrap();
    let (mut client, mut node, mut task) = ends.run();
    client.write_all(b"34").await.unwrap();
    assert_eq!(take(&mut node, 4).await, b"1234");
    node.write_all(b"llo").await.unwrap();
    assert_eq!(
        take(&mut client, HEAD.len() + 5).await,
        [HEAD, b"hello"].concat()
    );
    // Holds for 100 ms, in which the relay could end: no event proves that it does not.
    let early = tokio::time::timeout(Duration::from_millis(100), &mut task).await;
    assert!(early.is_err(), "the request is not whole");
    client.write_all(b"5678GET").await.unwrap();
    assert_eq!(take(&mut node, 4).await, b"5678");
    let (end, relay) = over(task, EndReason::Done).await;
    assert_eq!(end.to_node, 8);
    assert!(relay.is_over() && relay.request_is_sent());
    let (_, ahead, node) = relay.into_sides();
    assert_eq!((&ahead[..], node.is_some()), (&b"GET"[..], true));
}

/// After a refusal the client need not send the rest. Fails if the relay waits for it, or if the node's
/// connection is used again with half a request in it.
#[tokio::test]
async fn a_refusal_leaves_the_request() {
    let mut ends = Ends::asked(Framing::length(8), b"1234").await;
    ends.answer((Framing::length(5), Wrap::AsIs), b"he", true)
        .await
        .unwrap();
    let (mut client, mut node, task) = ends.run();
    node.write_all(b"llo").await.unwrap();
    assert_eq!(
        take(&mut client, HEAD.len() + 5).await,
        [HEAD, b"hello"].concat()
    );
    let (end, relay) = over(task, EndReason::Done).await;
    assert_eq!(end.to_node, 4);
    assert!(relay.is_over() && !relay.request_is_sent());
    assert!(relay.into_sides().2.is_none());
}

/// RFC 9112 §9.5: a node that takes no more of the request may have answered. Fails if its answer is lost, or
/// waits for the rest of the request.
#[tokio::test]
async fn a_node_that_takes_no_more_is_heard() {
    let ends = Ends::asked(Framing::length(1 << 20), &[b'x'; 1000]).await;
    let (mut client, mut node, mut relay) = (ends.client, ends.node, ends.relay);
    node.write_all(&[HEAD, b"hello"].concat()).await.unwrap();
    // The body is unread, so the close resets the connection behind the answer.
    drop(node);
    let uploads = tokio::spawn(async move {
        let _ = client.write_all(&vec![b'x'; 1 << 20]).await;
        client
    });
    let mut got = Vec::new();
    while got.len() < HEAD.len() + 5 {
        let more = poll_fn(|cx| relay.poll_answer(cx, &mut got));
        soon("an answer", more).await.unwrap();
    }
    let (outer, node) = (pair().await.0, pair().await.0);
    let mut ends = Ends {
        client: outer,
        node,
        relay,
    };
    let body = (Framing::length(5), Wrap::AsIs);
    ends.answer(body, &got[HEAD.len()..], false).await.unwrap();
    let (end, relay) = over(ends.run().2, EndReason::Done).await;
    assert!(end.to_node < 1 << 20 && !relay.request_is_sent());
    let (side, _, node) = relay.into_sides();
    assert!(node.is_none());
    drop(side);
    let mut client = uploads.await.unwrap();
    assert_eq!(
        take(&mut client, HEAD.len() + 5).await,
        [HEAD, b"hello"].concat()
    );
}

/// Fails if the copy differs from the body that the client sent, or if the copy has no limit.
#[tokio::test]
async fn a_body_is_copied_up_to_its_limit() {
    for (copy, bytes, kept) in [
        (true, MAX_COPY + 1, false),
        (true, MAX_COPY, true),
        (true, 1, true),
        (false, 1, false),
    ] {
        let body: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
        let (ahead, rest) = body.split_at(bytes.min(1000));
        let mut ends = Ends::new(Framing::length(bytes as u64), copy).await;
        ends.send(ahead).await.unwrap();
        take(&mut ends.node, REQUEST.len()).await;
        let read = ends.while_waiting(async |client, node| {
            client.write_all(rest).await.unwrap();
            assert!(take(node, bytes).await == body);
            node.write_all(HEAD).await.unwrap();
        });
        read.await.unwrap();
        let copied = ends.relay.copy();
        assert!(
            copied == kept.then_some(body),
            "{bytes} bytes, copied: {copy}"
        );
    }
}
