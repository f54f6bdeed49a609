//! Ends of answers over HTTP/2: each framing of a node becomes the stream's end, a cut answer its reset.
//!
//! Source: RFC 9110 §6.4.1 (answers without a body); RFC 9112 §6.3, §7.1.1; RFC 9113 §8.1.

use h2::Reason;

use super::rig::{HOST, Rig};
use crate::client::raw_h2::{Answer, Field, head};

/// Aim: answers that have no body end with their head, whatever length they announce, and the node's
/// connection carries the next one. Fails if a stream waits for bytes that never come.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_end_with_their_head() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let mut node = None;
    for (method, answer, status) in [
        ("HEAD", "200 OK\r\nContent-Length: 1000\r\n", 200),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n", 200),
        ("HEAD", "404 Not Found\r\nContent-Length: 10\r\n", 404),
        ("GET", "204 No Content\r\n", 204),
        ("GET", "304 Not Modified\r\nContent-Length: 1000\r\n", 304),
        ("GET", "200 OK\r\nContent-Length: 0\r\n", 200),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            200,
        ),
    ] {
        let what = format!("{method} {answer:?}");
        let id = client.open(&head(method, HOST, "/", &[]), true).await;
        if node.is_none() {
            node = Some(rig.accept().await);
        }
        let Some(node) = &mut node else {
            unreachable!("just made")
        };
        let asked = node.head().await;
        assert!(asked.starts_with(method), "{what}: {asked}");
        node.say(format!("HTTP/1.1 {answer}\r\n")).await;
        let got = client.answer(id).await;
        assert_eq!(
            (got.status, got.whole, got.body.len()),
            (status, true, 0),
            "{what}"
        );
        let data = client.order.iter().any(|(stream, _)| *stream == id);
        assert!(!data || answer.ends_with("\r\n0\r\n"), "{what}: DATA");
        if answer.contains("1000") {
            assert_eq!(got.field("content-length"), Some("1000"), "{what}");
        }
    }
}

/// Name; what the node sends as fields and as body; whether it then resets its connection; the body at the
/// client, and whether it is whole.
const ENDS: &[(&str, &str, &str, bool, &str, bool)] = &[
    ("close", "", "abc", false, "abc", true),
    ("close and nothing", "", "", false, "", true),
    (
        "chunks",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
        false,
        "abc",
        true,
    ),
    (
        "a blank before an extension",
        "Transfer-Encoding: chunked\r\n",
        "002 ;x\r\nde\r\n0\r\n\r\n",
        false,
        "",
        false,
    ),
    (
        "chunk extensions",
        "Transfer-Encoding: chunked\r\n",
        "3;a=b;c=\"d\"\r\nabc\r\n002;x\r\nde\r\n0;end\r\n\r\n",
        false,
        "abcde",
        true,
    ),
    ("reset instead of close", "", "abc", true, "abc", false),
    (
        "too few bytes",
        "Content-Length: 5\r\n",
        "abc",
        false,
        "abc",
        false,
    ),
    (
        "too few bytes and a reset",
        "Content-Length: 5\r\n",
        "abc",
        true,
        "abc",
        false,
    ),
    (
        "no last chunk",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n",
        false,
        "abc",
        false,
    ),
    (
        "half a chunk",
        "Transfer-Encoding: chunked\r\n",
        "5\r\nabc",
        false,
        "abc",
        false,
    ),
    (
        "half an end",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n0\r\n",
        false,
        "abc",
        false,
    ),
    (
        "no chunk",
        "Transfer-Encoding: chunked\r\n",
        "zz\r\n",
        false,
        "",
        false,
    ),
    (
        "a trailer that may not be",
        "Transfer-Encoding: chunked\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        false,
        "",
        false,
    ),
];

/// Aim: a whole answer ends its stream. A cut answer resets its stream, without END_STREAM; its siblings and
/// its connection go on. Fails if a client can take a cut answer for a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn only_whole_answers_end_their_stream() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let sibling = client.open(&head("GET", HOST, "/sibling", &[]), true).await;
    let (mut beside, _) = rig.asked().await;
    beside
        .say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        .await;
    for (name, fields, said, resets, body, whole) in ENDS {
        let id = client.open(&head("GET", HOST, "/", &[]), true).await;
        let (mut node, _) = rig.asked().await;
        node.say(format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).await;
        client.until(id, |a| a.status == 200).await;
        node.say(said).await;
        let ends = |a: &Answer| a.whole || a.reset.is_some();
        client
            .until(id, |a| a.body.len() == body.len() || ends(a))
            .await;
        if *resets {
            let linger =
                socket2::SockRef::from(&node.io).set_linger(Some(std::time::Duration::ZERO));
            linger.expect("SO_LINGER");
        }
        drop(node);
        let got = client.answer(id).await;
        assert_eq!(String::from_utf8_lossy(&got.body), *body, "{name}");
        assert_eq!(got.whole, *whole, "{name}: {got:?}");
        let reset = (!whole).then_some(Reason::CANCEL);
        assert_eq!(got.reset, reset, "{name}");
    }
    beside.say("k").await;
    assert_eq!(client.answer(sibling).await.body, b"ok");
    assert!(client.goaways.is_empty(), "{:?}", client.goaways);
}

/// Aim: an answer that begins before its upload is whole passes at once, and the upload goes on to its end.
/// Fails if the answer waits for the request, or if the answer's first byte ends the request.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_begin_before_its_upload_ends() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let id = client.open(&head("POST", HOST, "/", &[]), false).await;
    let (mut node, _) = rig.asked().await;
    client.data(id, b"one", false).await;
    node.until(b"one\r\n").await;
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        .await;
    let begun = client.until(id, |a| a.body == b"ab").await;
    assert_eq!((begun.status, begun.whole), (200, false));
    client.data(id, b"two", false).await;
    node.until(b"two\r\n").await;
    node.say("cd").await;
    client.data(id, b"end", true).await;
    assert_eq!(node.until(b"0\r\n\r\n").await, "3\r\nend\r\n0\r\n\r\n");
    let answer = client.answer(id).await;
    assert_eq!(
        (&answer.body[..], answer.whole, answer.reset),
        (&b"abcd"[..], true, None)
    );
    let line = &rig.lines(1).await[0];
    assert_eq!(
        (&line["reason"], &line["bytes_up"]),
        (&"done".into(), &9.into()),
        "{line}"
    );
}

/// Aim: a refusal that is complete before its upload ends the stream with NO_ERROR, so that its client stops
/// sending (RFC 9113 §8.1). The connection goes on. Fails if the edge reads the rest of the upload for ever,
/// or reports an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_stopped_in_order() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let length: [Field<'_>; 1] = [(b"content-length", b"1000000")];
    let id = client.open(&head("POST", HOST, "/", &length), false).await;
    let (mut node, _) = rig.asked().await;
    client.data(id, b"one", false).await;
    node.until(b"one").await;
    node.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        .await;
    let answer = client.until(id, |a| a.reset.is_some()).await;
    assert_eq!((answer.status, &answer.body[..]), (413, &b"much"[..]));
    assert_eq!((answer.whole, answer.reset), (true, Some(Reason::NO_ERROR)));
    // DATA that was already on its way is not an error of the client.
    client.data(id, b"two", true).await;
    super::heads::assert_alive(&rig, &mut client).await;
}
