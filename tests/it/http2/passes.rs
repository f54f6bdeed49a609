//! Everything that HTTP/1 passes also passes over HTTP/2: interim answers, trailers, bodies of every framing.
//!
//! Source: RFC 9110 §6.5 (trailers), §7.6.1 (hop-by-hop), §10.1.1 (Expect), §15.2 (1xx); RFC 9113 §8.1,
//! §8.2.2.

use h2::Reason;

use super::rig::{HOST, Rig};
use crate::client::raw_h2::{Field, head};

/// Aim: a client that waits for 100 gets it before its body, and 103 arrives before the answer. Source: RFC
/// 9110 §15.2: a proxy forwards 1xx. Fails without interim HEADERS: Java's HttpClient waits for ever (field
/// 02).
#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_reach_the_client() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let more: [Field<'_>; 2] = [(b"expect", b"100-continue"), (b"content-length", b"5")];
    let id = client.open(&head("POST", HOST, "/", &more), false).await;
    let (mut node, asked) = rig.asked().await;
    assert!(
        asked
            .to_ascii_lowercase()
            .contains("expect: 100-continue\r\n"),
        "{asked}"
    );
    node.say("HTTP/1.1 100 Continue\r\n\r\n").await;
    let told = client.until(id, |a| !a.interim.is_empty()).await;
    assert_eq!(
        (told.interim, told.status, told.whole),
        (vec![100], 0, false)
    );
    client.data(id, b"hello", true).await;
    assert_eq!(node.until(b"hello").await, "hello");
    node.say("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        .await;
    client.until(id, |a| a.interim.len() == 2).await;
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let answer = client.answer(id).await;
    assert_eq!(answer.interim, [100, 103]);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
}

/// Aim: trailers pass both ways, in order, repeated names included. A request with a length has no place for
/// them and is whole without. Fails if one is lost (field 09), or if a body ends before its trailers.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let te: [Field<'_>; 1] = [(b"te", b"trailers")];
    let id = client.open(&head("POST", HOST, "/", &te), false).await;
    let (mut node, _) = rig.asked().await;
    client.data(id, b"abc", false).await;
    client
        .fields(
            id,
            &[(b"x-sum", b"7"), (b"x-sum", b"8"), (b"x-empty", b"")],
            true,
        )
        .await;
    let body = node.until(b"\r\n\r\n").await;
    assert_eq!(
        body,
        "3\r\nabc\r\n0\r\nx-sum: 7\r\nx-sum: 8\r\nx-empty: \r\n\r\n"
    );
    node.say("HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    node.say("3\r\nabc\r\n0\r\nGrpc-Status: 0\r\nX-T: 1\r\nX-T: 2\r\n\r\n")
        .await;
    let answer = client.answer(id).await;
    assert_eq!(
        (answer.status, &answer.body[..], answer.whole),
        (200, &b"abc"[..], true)
    );
    assert_eq!(answer.field("trailer"), Some("grpc-status"));
    let trailers = answer.trailers.expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(
        trailers.get_all("x-t").iter().collect::<Vec<_>>(),
        ["1", "2"]
    );

    let length: [Field<'_>; 1] = [(b"content-length", b"3")];
    let id = client.open(&head("POST", HOST, "/", &length), false).await;
    client.data(id, b"abc", false).await;
    client.fields(id, &[(b"x-sum", b"7")], true).await;
    node.head().await;
    assert_eq!(node.until(b"abc").await, "abc");
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.answer(id).await.status, 200);
    assert!(node.unread().is_empty(), "{:?}", node.unread());
}

/// Aim: trailers after an empty body, and trailers of the longest allowed length, pass both ways. Longer
/// trailers of a client or of a node reset the stream. Fails if the limit differs from HTTP/1's, 4 KiB.
#[tokio::test(flavor = "multi_thread")]
async fn long_trailers_pass_and_longer_ones_end_the_stream() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    for (bytes, passes) in [(1, true), (4_000, true), (5_000, false), (100_000, false)] {
        let long = "x".repeat(bytes);
        let id = client.open(&head("POST", HOST, "/", &[]), false).await;
        let (mut node, _) = rig.asked().await;
        client
            .fields(id, &[(b"x-long", long.as_bytes())], true)
            .await;
        if !passes {
            let answer = client.answer(id).await;
            assert_eq!(
                answer.reset,
                Some(Reason::PROTOCOL_ERROR),
                "{bytes} up: {answer:?}"
            );
            node.ended().await;
            continue;
        }
        let body = node.until(b"\r\n\r\n").await;
        assert_eq!(body, format!("0\r\nx-long: {long}\r\n\r\n"), "{bytes}");
        node.say("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        node.say(format!("0\r\nX-Long: {long}\r\n\r\n")).await;
        let answer = client.answer(id).await;
        let trailers = answer.trailers.expect("trailers");
        assert_eq!(trailers["x-long"], long.as_str(), "{bytes}");
    }
    let id = client.open(&head("GET", HOST, "/", &[]), true).await;
    let (mut node, _) = rig.asked().await;
    node.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ")
        .await;
    node.say("x".repeat(5_000) + "\r\n\r\n").await;
    let answer = client.answer(id).await;
    assert_eq!(
        (answer.whole, answer.reset),
        (false, Some(Reason::CANCEL)),
        "{answer:?}"
    );
    assert!(client.goaways.is_empty(), "{:?}", client.goaways);
}

/// Aim: hop-by-hop fields stop at the edge both ways: HTTP/2's `te`, and those of the node's answer and of
/// its framing. Fails if one reaches the other side, or if another field is lost.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_connection_stay_on_it() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let more: [Field<'_>; 3] = [
        (b"te", b"trailers"),
        (b"trailer", b"x-sum"),
        (b"x-kept", b"1"),
    ];
    let id = client.open(&head("GET", HOST, "/", &more), true).await;
    let (mut node, asked) = rig.asked().await;
    let asked = asked.to_ascii_lowercase();
    for gone in [
        "\r\nte:",
        "\r\ntrailer:",
        "\r\nconnection:",
        "\r\ntransfer-encoding:",
    ] {
        assert!(!asked.contains(gone), "{gone} in {asked}");
    }
    assert!(asked.contains("\r\nx-kept: 1\r\n"), "{asked}");
    node.say(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, X-Named\r\nX-Named: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    )
    .await;
    let answer = client.answer(id).await;
    for gone in [
        "transfer-encoding",
        "connection",
        "x-named",
        "keep-alive",
        "proxy-connection",
        "upgrade",
    ] {
        assert_eq!(answer.field(gone), None, "{gone}");
    }
    assert_eq!(
        (answer.field("x-kept"), &answer.body[..]),
        (Some("1"), &b"ok"[..])
    );
}

/// Aim: the crumbs of a cookie reach the node as one line (RFC 9113 §8.2.3); other repeated fields pass
/// unchanged. Fails if a node that reads only the first line misses a crumb.
#[tokio::test(flavor = "multi_thread")]
async fn crumbs_of_a_cookie_are_one_line() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let more: [Field<'_>; 5] = [
        (b"cookie", b"a=1"),
        (b"x-two", b"1"),
        (b"cookie", b"b=2; c=3"),
        (b"x-two", b"2"),
        (b"cookie", b"d=4"),
    ];
    let id = client.open(&head("GET", HOST, "/", &more), true).await;
    let (mut node, asked) = rig.asked().await;
    assert_eq!(asked.matches("ookie:").count(), 1, "{asked}");
    assert!(asked.contains("ookie: a=1; b=2; c=3; d=4\r\n"), "{asked}");
    assert!(asked.contains("x-two: 1\r\nx-two: 2\r\n"), "{asked}");
    node.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.answer(id).await.status, 204);
}

/// Aim: `bytes_up` and `bytes_down` count the bodies of each stream, whatever its siblings move and however
/// the node frames them. Fails if they count the connection, or chunks.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_those_of_the_stream() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let mut ids = Vec::new();
    let mut nodes = Vec::new();
    for (path, up) in [("/a", 1_000), ("/b", 10), ("/c", 0)] {
        let id = client.open(&head("POST", HOST, path, &[]), false).await;
        nodes.push(rig.asked().await.0);
        client.data(id, &vec![b'u'; up], true).await;
        ids.push(id);
    }
    let chunked = format!("7d0\r\n{}\r\n0\r\n\r\n", "d".repeat(2_000));
    let answers = [
        format!("Transfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("Content-Length: 20\r\n\r\n{}", "d".repeat(20)),
        "Content-Length: 0\r\n\r\n".to_owned(),
    ];
    for ((node, answer), id) in nodes.iter_mut().zip(answers).zip(ids) {
        node.until(b"0\r\n\r\n").await;
        node.say(format!("HTTP/1.1 200 OK\r\n{answer}")).await;
        assert!(client.answer(id).await.whole);
    }
    let lines = rig.lines(3).await;
    for (path, up, down) in [("/a", 1_000, 2_000), ("/b", 10, 20), ("/c", 0, 0)] {
        let line = lines.iter().find(|l| l["path"] == path).expect("its line");
        assert_eq!(
            (&line["bytes_up"], &line["bytes_down"]),
            (&up.into(), &down.into()),
            "{line}"
        );
    }
}
