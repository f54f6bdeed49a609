//! HTTP/2 windows: reopened, negative, shut, opened byte by byte; and clients that read nothing.
//!
//! In: clients that give windows for what they request, or do not. Out: bytes, and bounded memory. Source:
//! RFC 9113 §5.2, §6.1 (padding counts), §6.9.2 (a window may become negative).

use std::time::Duration;

use h2::Reason;

use super::witness::Witness;
use crate::client::frames::*;
use crate::setup::Setup;

/// Initial window, RFC 9113 §6.9.2.
const FIRST: usize = 65_535;
/// Bounded wait for bytes that must not come.
const QUIET: Duration = Duration::from_millis(200);

/// Aim: the edge gives the window of padding back even if no one reads the body; otherwise an upload whose
/// window was used up by padding waits for ever. Seen: only reads gave windows back. Fails if padding is
/// given back with the next read.
#[tokio::test(flavor = "multi_thread")]
async fn padding_is_given_back_without_a_read() {
    let setup = Setup::start(1).await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    client.send(&post(1, "/echo")).await;
    let padding = frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat());
    client.send(&padding.repeat(FIRST / 256)).await;
    client
        .wait("the stream's window", |f| {
            f.given.get(&1).is_some_and(|n| *n >= FIRST / 2)
        })
        .await;
    let body = [&[100][..], &[b'x'; 9_000], &[0; 100]].concat();
    client
        .send(&frame(DATA, PADDED | END_STREAM, 1, &body))
        .await;
    client.wait("the echo", |f| f.data_of(1) == 9_000).await;
}

/// Aim: an upload of padded frames goes on as long as its windows allow, and reaches the node without
/// padding. Fails if padding counts in only one of the two windows.
#[tokio::test(flavor = "multi_thread")]
async fn padded_uploads_go_on() {
    let setup = Setup::start(1).await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    client.send(&post(1, "/echo")).await;
    let (data, length) = (500, 756);
    let one = frame(
        DATA,
        PADDED,
        1,
        &[&[255][..], &[b'x'; 500], &[0; 255]].concat(),
    );
    let most = 1_000;
    for n in 1..=most {
        client
            .wait("a window", |f| {
                FIRST + f.given.get(&1).unwrap_or(&0) >= n * length
            })
            .await;
        assert!(client.send(&one).await, "{:?}", client.goodbyes);
    }
    client.send(&frame(DATA, END_STREAM, 1, b"")).await;
    // The answer is as long as the body, and longer than the initial window.
    client
        .send(&[update(0, 1 << 20), update(1, 1 << 20)].concat())
        .await;
    client
        .wait("the echo", |f| f.data_of(1) == most * data)
        .await;
}

/// Aim: a stream whose window SETTINGS made negative sends nothing until the window is positive again, to the
/// byte. Fails if the window is clamped at zero.
#[tokio::test(flavor = "multi_thread")]
async fn a_negative_window_takes_nothing() {
    let setup = Setup::start(1).await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    client
        .send(&[update(0, 1 << 20), get(1, "/flood")].concat())
        .await;
    client
        .wait("the first window", |f| f.data_of(1) == FIRST)
        .await;
    let less = [settings(&[(FIRST_WINDOW, 0)]), update(1, FIRST as u32 - 1)].concat();
    client.send(&less).await;
    client.read_for(QUIET, |f| f.data_of(1) > FIRST).await;
    assert_eq!(client.data_of(1), FIRST);
    client.send(&update(1, 8)).await;
    client
        .wait("seven bytes", |f| f.data_of(1) >= FIRST + 7)
        .await;
    client.read_for(QUIET, |f| f.data_of(1) > FIRST + 7).await;
    assert_eq!(client.data_of(1), FIRST + 7);
}

/// Aim: the head of an answer needs no window. Seen: with both windows shut it left with the next frame of
/// another stream. Fails if a body that waits for a window holds its head back.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_waits_for_no_window() {
    let setup = Setup::start(1).await;
    let mut client = Frames::connect(&setup.tls(), &[(FIRST_WINDOW, 0)]).await;
    // The node sends head and body in one piece.
    client.send(&get(1, "/hello")).await;
    client
        .wait("the head on a shut stream", |f| f.frames(HEADERS) == 1)
        .await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    client.send(&get(1, "/flood")).await;
    client
        .wait("the connection's window", |f| f.data_of(1) == FIRST)
        .await;
    client.send(&get(3, "/hello")).await;
    client
        .wait("the head on a shut connection", |f| f.frames(HEADERS) == 2)
        .await;
}

/// Aim: 100 streams with shut windows get their heads and nothing else, whatever their node sends, and affect
/// no other client. Fails if heads wait for a window, or if the nodes' bytes accumulate in the edge.
#[tokio::test(flavor = "multi_thread")]
async fn shut_windows_on_100_streams() {
    let setup = Setup::start(1).await;
    let mut witness = Witness::start(&setup).await;
    witness.begin();
    let mut client = Frames::connect(&setup.tls(), &[(FIRST_WINDOW, 0)]).await;
    let mut all: Vec<u8> = ids(99).flat_map(|id| get(id, "/hello")).collect();
    all.extend(get(199, "/flood"));
    client.send(&all).await;
    client.wait("100 heads", |f| f.frames(HEADERS) == 100).await;
    client.read_for(QUIET, |f| f.frames(DATA) > 0).await;
    assert_eq!(client.frames(DATA), 0);
    // Then the last stream's window opens byte by byte.
    for n in 1..=100 {
        client.send(&update(199, 1)).await;
        client.wait("a byte", |f| f.data_of(199) == n).await;
    }
    witness.unharmed("shut windows");
}

/// Aim: unread bodies cost as much memory as their bytes, however small their frames. Seen: 3 MiB for a
/// window of one-byte frames, which makes 300 MiB for 100 streams. Fails if frames are kept as they arrived.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_one_byte_cost_what_they_carry() {
    const STREAMS: u32 = 10;
    let setup = Setup::start(1).await;
    let mut witness = Witness::start(&setup).await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    client.send(&get(1, "/hello")).await;
    witness.begin();
    let fields = [head("POST", "/hold"), field("expect", "100-continue")].concat();
    for id in ids(STREAMS + 1).skip(1) {
        client.send(&frame(HEADERS, END_HEADERS, id, &fields)).await;
        client.send(&frame(DATA, 0, id, b"x").repeat(FIRST)).await;
    }
    client.ping().await;
    let grown = witness.grown();
    assert!(grown < 12 << 20, "{grown} bytes for {STREAMS} windows");
    witness.unharmed("frames of one byte");
}

/// Aim: the edge stops reading a client that sends requests and reads nothing, before the bytes that wait for
/// it grow. Seen: each answer without a body waited in the process, most of them in the codec, and the next
/// request was read. Fails if requests are read regardless of what waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_not_read() {
    const MOST: usize = 600;
    const STALLED: Duration = Duration::from_secs(2);
    let setup = Setup::start(1).await;
    let mut witness = Witness::start(&setup).await;
    let mut dial = setup.tls();
    dial.rcvbuf = Some(4_096);
    let mut client = Frames::connect(&dial, &[]).await;
    witness.begin();
    // Longer than a header table: each answer is as long as the first.
    let path = format!("/hello?cookie=a={}", "x".repeat(7_000));
    let head = head("HEAD", &path);
    let heads = |seen: &[serde_json::Value]| seen.iter().filter(|l| l["method"] == "HEAD").count();
    let mut sent = 0;
    for ten in 0..MOST as u32 / 10 {
        let more: Vec<u8> = (0..10)
            .flat_map(|i| {
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    20 * ten + 2 * i + 1,
                    &head,
                )
            })
            .collect();
        if !client.push(&more, STALLED).await {
            break;
        }
        sent += 10;
        let answered = async {
            while heads(&setup.edge.access()) < sent {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(STALLED, answered).await.is_err() {
            break;
        }
    }
    assert!(sent < MOST, "all {sent} requests were read");
    witness.unharmed("a client that reads nothing");
    // Nothing is lost: the edge answers these requests once the client reads.
    client
        .wait("its answers", |f| f.frames(HEADERS) >= sent)
        .await;
}

/// Aim: a client that reads late still gets the reason of its connection's end, after the bytes that waited
/// for it. Fails if waiting bytes are dropped at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_late_is_told() {
    let setup = Setup::start(1).await;
    let mut dial = setup.tls();
    dial.rcvbuf = Some(4_096);
    let mut client = Frames::connect(&dial, &[]).await;
    let head = head("HEAD", &format!("/hello?cookie=a={}", "x".repeat(7_000)));
    // Fewer requests than make the edge stop reading.
    let asks = ids(8).flat_map(|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &head));
    assert!(client.push(&asks.collect::<Vec<u8>>(), QUIET).await);
    setup
        .edge
        .wait_access("8 answers", |lines| lines.len() >= 8)
        .await;
    let flood = settings(&[(FIRST_WINDOW, 65_535)]).repeat(60);
    assert!(client.push(&flood, QUIET).await);
    setup
        .edge
        .wait_metric("pushgate_http2_ended_total", |n| n == 1.0)
        .await;
    assert_eq!(client.end().await, Some(Reason::ENHANCE_YOUR_CALM));
}
