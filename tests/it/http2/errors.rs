//! How connections end whose clients break the rules, never finish, or leave.
//!
//! In: illegal or unfinished frames, no floods. Out: GOAWAY with the code of the RFC, the counted reason,
//! 431. Source: RFC 9113 §3.4, §4.2, §5.1, §5.1.1, §6.

use std::time::{Duration, Instant};

use h2::Reason;
use tokio::io::AsyncReadExt;

use super::witness::{Ended, Witness};
use crate::client::frames::*;
use crate::client::handshake;
use crate::deadline;
use crate::setup::Setup;

/// Aim: a client that breaks a rule gets GOAWAY with the right code, and its connection counts under the
/// right reason. Fails if a bad frame is ignored, or has another code or reason.
#[tokio::test(flavor = "multi_thread")]
async fn errors_end_their_connection() {
    let setup = Setup::start(1).await;
    let mut witness = Witness::start(&setup).await;
    let both = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let promise = [&2u32.to_be_bytes()[..], &head("GET", "/hello")].concat();
    let huge = both(vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1], vec![0; 1_000]);
    let hold = || get(1, "/hold");
    #[rustfmt::skip]
    let rows: [(&str, Vec<u8>, Reason, &str); 11] = [
        ("a frame above 16 KiB", huge, Reason::FRAME_SIZE_ERROR, "frame_size"),
        ("an even stream", get(2, "/hello"), Reason::PROTOCOL_ERROR, "protocol"),
        ("a stream below the last", both(get(9, "/hold"), get(5, "/hold")), Reason::STREAM_CLOSED, "stream_closed"),
        ("DATA of no stream", frame(DATA, 0, 7, b"x"), Reason::PROTOCOL_ERROR, "protocol"),
        ("RST_STREAM of no stream", reset(7), Reason::PROTOCOL_ERROR, "protocol"),
        ("DATA behind a reset", [post(1, "/hold"), reset(1), frame(DATA, 0, 1, b"x")].concat(), Reason::STREAM_CLOSED, "stream_closed"),
        ("PUSH_PROMISE", both(hold(), frame(PROMISE, END_HEADERS, 1, &promise)), Reason::PROTOCOL_ERROR, "protocol"),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, b""), Reason::PROTOCOL_ERROR, "protocol"),
        ("a frame within a head", both(frame(HEADERS, 0, 1, b""), frame(PING, 0, 0, b"12345678")), Reason::PROTOCOL_ERROR, "protocol"),
        ("a window beyond 2^31", update(0, i32::MAX as u32), Reason::FLOW_CONTROL_ERROR, "flow_control"),
        ("windows beyond 2^31", [hold(), update(1, i32::MAX as u32 - 65_535), settings(&[(FIRST_WINDOW, 65_536)])].concat(), Reason::FLOW_CONTROL_ERROR, "flow_control"),
    ];
    for (name, frames, reason, word) in rows {
        let before = Ended::of(&setup).await;
        witness.begin();
        let mut client = Frames::connect(&setup.tls(), &[]).await;
        client.send(&frames).await;
        assert_eq!(client.end().await, Some(reason), "{name}");
        before.one_more(&setup, word, name).await;
        witness.unharmed(name);
    }
}

/// Aim: a head above a limit gets 431, and its connection goes on. A cookie in crumbs counts as one line.
/// Fails if the codec refuses a head before the edge can answer, or if crumbs are counted.
#[tokio::test(flavor = "multi_thread")]
async fn heads_above_a_limit_are_answered() {
    let setup = Setup::start(1).await;
    let fields = |n: usize| {
        (0..n)
            .flat_map(|i| field(&format!("x-{i}"), "1"))
            .collect::<Vec<u8>>()
    };
    let long = field("x-long", &"y".repeat(70_000));
    let rows: [(&str, Vec<u8>, u64); 4] = [
        ("101 fields", fields(101), 431),
        ("101 crumbs", field("cookie", "a=b").repeat(101), 200),
        ("2,500 crumbs", field("cookie", "").repeat(2_500), 431),
        ("70,000 bytes", long, 431),
    ];
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    for (id, (n, (name, fields, status))) in ids(4).zip(rows.into_iter().enumerate()) {
        let whole = [head("GET", "/hello"), fields].concat();
        let mut kind = HEADERS;
        let parts = whole.chunks(16_000);
        let last = parts.len() - 1;
        for (i, part) in parts.enumerate() {
            let whole = if i == last { END_HEADERS } else { 0 };
            let end = if kind == HEADERS { END_STREAM } else { 0 };
            client.send(&frame(kind, whole | end, id, part)).await;
            kind = CONTINUATION;
        }
        client.wait(name, |f| f.frames(HEADERS) > n).await;
        client.ping().await;
        let lines = setup.edge.wait_access(name, |lines| lines.len() > n).await;
        assert_eq!(lines[n]["status"], status, "{name}");
    }
}

/// Aim: prefaces and first heads that are never finished end after `head_timeout`, and affect no other
/// client. Fails if the time counts from the preface, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_heads_end_in_time() {
    let timeout = "  - { name: hasty, bind: [200.0.0.10:444], mode: http, head_timeout: 1s, \
                   tls: { certificates: [push] }, to: p }\n";
    let setup = Setup::and(1, "", "", timeout).await;
    let mut dial = setup.tls();
    dial.to = setup.block.at("200.0.0.10:444");
    let witness = Witness::start(&setup).await;
    let half = frame(HEADERS, END_STREAM, 1, &head("GET", "/hello")[..20]);
    let half_frame = &get(3, "/hello")[..20];
    let begun = [PREFACE, &settings(&[])].concat();
    let behind = [get(1, "/hello"), half_frame.to_vec()].concat();
    let rows: [(&str, Vec<u8>, Option<Reason>, &str); 6] = [
        ("nothing", Vec::new(), None, "head_timeout"),
        (
            "half a preface",
            PREFACE[..12].to_vec(),
            None,
            "head_timeout",
        ),
        (
            "no request",
            begun.clone(),
            Some(Reason::NO_ERROR),
            "head_timeout",
        ),
        (
            "half a head",
            [begun.clone(), half].concat(),
            Some(Reason::NO_ERROR),
            "head_timeout",
        ),
        (
            "half a frame behind a request",
            [begun, behind].concat(),
            Some(Reason::NO_ERROR),
            "head_timeout",
        ),
        (
            "HTTP/1",
            b"GET / HTTP/1.1\r\nHost: push\r\n\r\n".to_vec(),
            None,
            "preface",
        ),
    ];
    for (name, bytes, reason, word) in rows {
        let before = Ended::of(&setup).await;
        let mut client = Frames::silent(&dial).await;
        client.send(&bytes).await;
        assert_eq!(client.end().await, reason, "{name}");
        before.one_more(&setup, word, name).await;
    }
    witness.unharmed("half requests");
}

/// Aim: the first request has `head_timeout` from the accept of the connection, including a slow handshake,
/// for both versions. Fails if the time counts from the handshake's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_counts_in_the_time_of_the_first_head() {
    let timeout = "  - { name: hasty, bind: [200.0.0.10:444], mode: http, head_timeout: 3s, \
                   tls: { certificates: [push] }, to: p }\n";
    let setup = Setup::and(1, "", "", timeout).await;
    for alpn in [&b"\x02h2"[..], b""] {
        let mut dial = setup.tls();
        dial.to = setup.block.at("200.0.0.10:444");
        let mut tls = dial.tls.clone().expect("a TLS listener");
        tls.alpn = alpn;
        let tcp = dial.tcp().await;
        let accepted = Instant::now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut client = handshake(tcp, &tls).await.expect("a handshake");
        let mut scrap = Vec::new();
        let read = client.read_to_end(&mut scrap);
        let _ = deadline("the end of a silent connection", read).await;
        // Counted from the handshake it would be 5 s; the limit includes 1.5 s for a busy machine.
        let took = accepted.elapsed();
        assert!(took < Duration::from_millis(4_500), "it took {took:?}");
    }
}

/// Aim: a client that sends GOAWAY keeps its streams and gets no new ones; the connection ends with the last.
/// Fails if GOAWAY ends the streams, or if the connection stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_goaway_keeps_its_streams() {
    let setup = Setup::start(1).await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    client.send(&get(1, "/sse?every=1")).await;
    client.wait("an event", |f| f.data_of(1) > 0).await;
    client.send(&frame(GO_AWAY, 0, 0, &[0; 8])).await;
    client.send(&get(3, "/hello")).await;
    let before = client.data_of(1);
    client
        .wait("more events", |f| f.data_of(1) > before + 200)
        .await;
    assert_eq!(client.frames(HEADERS), 1, "a new stream was served");
    client.send(&reset(1)).await;
    assert_eq!(client.end().await, Some(Reason::NO_ERROR));
}

/// Aim: connections that vanish in the middle of a frame leave no connection at the node. Fails if a stream's
/// task outlives its connection.
#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_in_a_frame_leave_nothing() {
    let setup = Setup::start(1).await;
    let witness = Witness::start(&setup).await;
    let before = setup.nodes[0].seen().open_now();
    for _ in 0..20 {
        let mut client = Frames::connect(&setup.tls(), &[]).await;
        let all: Vec<u8> = ids(20).flat_map(|id| get(id, "/sse?silent=1")).collect();
        client.send(&all).await;
        client.wait("heads", |f| f.frames(HEADERS) == 20).await;
        client
            .push(&get(41, "/hello")[..15], Duration::from_secs(1))
            .await;
    }
    setup.nodes[0]
        .wait("only the ordinary client's", |seen| {
            seen.open_now() <= before
        })
        .await;
    witness.unharmed("cut connections");
}
