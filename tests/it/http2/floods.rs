//! Floods: their cost for the edge and for other clients, and how the connection ends.
//!
//! In: frames that cost their sender little. Out: GOAWAY with a counted reason, memory and time. Source: RFC
//! 9113 §10.5; CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671.

use std::time::Duration;

use h2::Reason;

use super::witness::{Ended, Witness};
use crate::client::frames::*;
use crate::setup::Setup;

/// Frames of a flood; a limit ends it before.
const MANY: usize = 20_000;

/// Name, frames, code of the connection's end, reason in the metric.
type Row = (&'static str, Vec<u8>, Reason, &'static str);

/// Streams that the client opens and cancels at once, or makes the edge reset.
fn streams(head: &[u8], flags: u8, then: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let one = |id| [frame(HEADERS, flags, id, head), then(id)].concat();
    ids(300).flat_map(one).collect()
}

/// Floods of streams that end before their answers do.
fn resets() -> Vec<Row> {
    let (open, ended) = (END_HEADERS, END_HEADERS | END_STREAM);
    let hold = head("GET", "/hold");
    let five = [&hold[..], &field("content-length", "5")].concat();
    let upper = [&hold[..], &field("Upper", "case")].concat();
    let calm = |name, frames| (name, frames, Reason::ENHANCE_YOUR_CALM, "resets");
    vec![
        calm("reset at once", streams(&hold, ended, reset)),
        calm(
            "a window beyond 2^31",
            streams(&hold, open, |id| update(id, i32::MAX as u32)),
        ),
        calm(
            "DATA behind the end",
            streams(&hold, ended, |id| frame(DATA, 0, id, b"x")),
        ),
        calm(
            "a head behind the end",
            streams(&hold, ended, |id| get(id, "/hold")),
        ),
        calm(
            "more DATA than announced",
            streams(&five, open, |id| frame(DATA, 0, id, b"longer")),
        ),
        calm("DATA beyond the window", {
            let full = frame(DATA, 0, 1, &[0; 16_384]);
            streams(&hold, open, |id| {
                let mut five = full.repeat(5);
                five.chunks_mut(full.len())
                    .for_each(|f| f[5..9].copy_from_slice(&id.to_be_bytes()));
                five
            })
        }),
        calm("a stream that depends on itself", {
            streams(&hold, open, |id| {
                frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], b"w"].concat())
            })
        }),
        calm(
            "pseudo-headers in trailers",
            streams(&hold, open, |id| get(id, "/hold")),
        ),
        calm("more streams than are allowed, which it was told", {
            let told = frame(SETTINGS, ACK, 0, b"");
            [told, streams(&hold, ended, |_| Vec::new())].concat()
        }),
        calm("an empty update", streams(&hold, open, |id| update(id, 0))),
        calm(
            "a field in capitals",
            streams(&upper, ended, |_| Vec::new()),
        ),
    ]
}

/// Floods of frames other than streams, and heads that never end.
fn frames() -> Vec<Row> {
    let calm = |name, frames, reason| (name, frames, Reason::ENHANCE_YOUR_CALM, reason);
    let head = frame(HEADERS, END_STREAM, 1, &head("GET", "/hello"));
    let behind = |one: Vec<u8>, n: usize| [&head[..], &one.repeat(n)].concat();
    let fields = field("x-many", "of them").repeat(500);
    let post = post(1, "/hold");
    vec![
        calm("PING", frame(PING, 0, 0, b"12345678").repeat(MANY), "pings"),
        calm(
            "SETTINGS",
            settings(&[(FIRST_WINDOW, 65_535)]).repeat(MANY),
            "settings",
        ),
        calm(
            "empty DATA",
            [post.clone(), frame(DATA, 0, 1, b"").repeat(MANY)].concat(),
            "empty_frames",
        ),
        calm(
            "DATA of padding",
            [post, frame(DATA, PADDED, 1, b"\x01\x00").repeat(MANY)].concat(),
            "empty_frames",
        ),
        calm(
            "CONTINUATION",
            behind(frame(CONTINUATION, 0, 1, &fields), 200),
            "continuation",
        ),
        calm(
            "empty CONTINUATION",
            behind(frame(CONTINUATION, 0, 1, b""), MANY),
            "continuation",
        ),
        calm(
            "an entry of the table, again and again",
            bomb(3_900, 12_000),
            "continuation",
        ),
        calm(
            "a crumb of the table, again and again",
            bomb(1, 15_000),
            "continuation",
        ),
    ]
}

/// A head that adds an entry of `size` bytes to the table and refers to it `n` times.
fn bomb(size: usize, n: usize) -> Vec<u8> {
    let mut fields = head("GET", "/hello");
    // A cookie of the static table, with its value added to the dynamic one (RFC 7541 §6.2.1).
    fields.push(0x60);
    integer(&mut fields, 0x7f, 0, size);
    fields.extend(vec![b'v'; size]);
    let names = vec![0x80 | 62; n];
    let first = frame(HEADERS, END_STREAM, 1, &fields);
    [first, frame(CONTINUATION, END_HEADERS, 1, &names)].concat()
}

/// Aim: each flood of streams ends its connection before it reaches the nodes, whichever side resets the
/// streams. Fails for the lower half of the table if only the client's own RST_STREAM is counted
/// (CVE-2025-8671).
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_resets_end_their_connection() {
    let setup = Setup::start(1).await;
    let mut witness = Witness::start(&setup).await;
    for row in resets() {
        ends(&setup, &mut witness, row).await;
    }
    let requests = setup.nodes[0].seen().requests().len();
    // Including those of the ordinary client.
    assert!(requests < 3_000, "{requests} requests reached the node");
}

/// Aim: each flood of frames that carry nothing, and each head without end, ends its connection. Fails
/// without the counter that its row names.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_their_connection() {
    let setup = Setup::start(1).await;
    let mut witness = Witness::start(&setup).await;
    for row in frames() {
        ends(&setup, &mut witness, row).await;
    }
}

async fn ends(setup: &Setup, witness: &mut Witness, (name, frames, reason, word): Row) {
    let before = Ended::of(setup).await;
    witness.begin();
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    client.send(&frames).await;
    assert_eq!(client.end().await, Some(reason), "{name}");
    before.one_more(setup, word, name).await;
    witness.unharmed(name);
}

/// Aim: one stream opened and reset each 30 ms ends the connection within 100 of them. Fails if a limit of
/// resets counts none that come slowly, or only those within one second.
#[tokio::test(flavor = "multi_thread")]
async fn paced_resets_end_the_connection() {
    let setup = Setup::start(1).await;
    let witness = Witness::start(&setup).await;
    let before = Ended::of(&setup).await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    let mut opened = 0;
    for id in ids(100) {
        opened += 1;
        client.send(&[get(id, "/hold"), reset(id)].concat()).await;
        if client.read_for(Duration::from_millis(30), |_| false).await {
            break;
        }
    }
    assert_eq!(client.end().await, Some(Reason::ENHANCE_YOUR_CALM));
    assert!(opened < 100, "{opened} streams");
    before.one_more(&setup, "resets", "paced").await;
    witness.unharmed("paced resets");
}

/// Aim: frames that no limit counts cost only their sender's bytes: the connection still answers after them.
/// Fails if one of them is an error, or if the edge keeps anything of it.
#[tokio::test(flavor = "multi_thread")]
async fn floods_without_a_limit_harm_no_other_client() {
    let setup = Setup::start(1).await;
    let mut witness = Witness::start(&setup).await;
    let some = |frame: Vec<u8>| frame.repeat(MANY);
    let tables = [vec![0x20; 10_000], head("GET", "/hello")].concat();
    let rows: [(&str, Vec<u8>); 8] = [
        ("PRIORITY", some(frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]))),
        ("an unknown type", some(frame(0x77, 0xff, 1, b"whatever"))),
        ("an unknown type, empty", some(frame(0x77, 0xff, 1, b""))),
        ("answers to no PING", some(frame(PING, ACK, 0, b"12345678"))),
        ("answers to no SETTINGS", some(frame(SETTINGS, ACK, 0, b""))),
        ("updates of a byte", some(update(0, 1))),
        ("resets of a closed stream", some(reset(1))),
        (
            "sizes of the table",
            frame(HEADERS, END_HEADERS | END_STREAM, 3, &tables),
        ),
    ];
    for (name, frames) in rows {
        witness.begin();
        let mut client = Frames::connect(&setup.tls(), &[]).await;
        client.send(&get(1, "/hello")).await;
        client.wait("an answer", |f| f.frames(DATA) > 0).await;
        assert!(client.send(&frames).await, "{name}: {:?}", client.goodbyes);
        client.ping().await;
        witness.unharmed(name);
    }
}
