//! SIGTERM and HTTP/2: idle connections end soon, live streams have until `drain_deadline`.
//!
//! Source: RFC 9113 §6.8 (GOAWAY); FAULTS D68.

use std::time::{Duration, Instant};

use h2::Reason;

use super::rig::{HOST, Rig};
use crate::client::raw_h2::{Answer, RawH2, head};
use crate::deadline;

/// The longest time that clients without a stream may delay the exit.
const SOON: Duration = Duration::from_secs(2);
/// Last stream id of a first GOAWAY: `STREAM_MAX`, so that requests already sent are still served.
const ALL: u32 = i32::MAX as u32;

/// Aim: clients without a stream get GOAWAY and are closed within 2 s of SIGTERM, even if they ignore it: one
/// that reads and stays, one that sent its preface only, one that sent nothing, one that does not read. Then
/// the process exits. Fails if an idle connection delays the exit, or if the first GOAWAY excludes a stream
/// that the client has already sent.
#[tokio::test(flavor = "multi_thread")]
async fn clients_without_a_stream_do_not_hold_a_stop_up() {
    let mut rig = Rig::start().await;
    let mut served = rig.client().await;
    super::heads::assert_alive(&rig, &mut served).await;
    let _deaf = rig.client().await;
    let mut greeted = rig.client().await;
    let mut dial = rig.tls();
    if let Some(tls) = &mut dial.tls {
        tls.alpn = b"\x02h2";
    }
    let _silent = dial.io().await;
    // Once its settings arrive, the edge serves the connection.
    greeted.pump().await;
    rig.edge.signal(libc::SIGTERM);
    let at = Instant::now();
    deadline("the end", served.ended()).await;
    deadline("the end", greeted.ended()).await;
    println!("idle connections ended {:?} after TERM", at.elapsed());
    assert!(at.elapsed() < SOON, "{:?}", at.elapsed());
    assert_eq!(served.goaways[0], (ALL, Reason::NO_ERROR));
    assert!(
        served.goaways[1..].contains(&(1, Reason::NO_ERROR)),
        "{:?}",
        served.goaways
    );
    assert_eq!(rig.edge.ended().await.code(), Some(0));
    println!("the process ended {:?} after TERM", at.elapsed());
    assert!(
        at.elapsed() < SOON + Duration::from_secs(1),
        "{:?}",
        at.elapsed()
    );
}

/// Aim: a stream that lives at SIGTERM goes on until it ends; then its connection ends. Streams that the
/// client begins after the last GOAWAY are not served. Fails if a drain ends streams, or serves new ones for
/// ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_outlives_term() {
    let mut rig = Rig::start().await;
    let mut client = rig.client().await;
    let (id, mut node) = begun(&rig, &mut client).await;
    rig.edge.signal(libc::SIGTERM);
    while client.goaways.len() < 2 {
        assert!(client.pump().await, "the connection ended");
    }
    assert_eq!(
        client.goaways,
        [(ALL, Reason::NO_ERROR), (id, Reason::NO_ERROR)]
    );
    let late = client.open(&head("GET", HOST, "/late", &[]), true).await;
    node.say("b").await;
    client.until(id, |a| a.body == b"ab").await;
    node.say("c").await;
    let answer = client.answer(id).await;
    assert_eq!((&answer.body[..], answer.whole), (&b"abc"[..], true));
    client.ended().await;
    let late = client.so_far(late);
    assert_eq!((late.status, late.reset), (0, None), "{late:?}");
    assert_eq!(rig.edge.ended().await.code(), Some(0));
    let paths: Vec<_> = rig
        .edge
        .access()
        .iter()
        .map(|l| l["path"].clone())
        .collect();
    assert_eq!(paths, ["/live"]);
}

/// Aim: an endless stream is reset at `drain_deadline`, not before, with the reason `drained`. Fails if it is
/// cut at SIGTERM, or delays the exit.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_is_reset_at_the_deadline() {
    let mut rig = Rig::with("drain_deadline: 1500ms\n", "", "").await;
    let mut client = rig.client().await;
    let (id, mut node) = begun(&rig, &mut client).await;
    rig.edge.signal(libc::SIGTERM);
    let at = Instant::now();
    let ends = |a: &Answer| a.whole || a.reset.is_some();
    let answer = client.until(id, ends).await;
    let after = at.elapsed();
    assert!(
        after >= Duration::from_millis(1400) && after < SOON + SOON,
        "{after:?}"
    );
    assert_eq!((answer.whole, answer.reset), (false, Some(Reason::CANCEL)));
    node.ended().await;
    assert_eq!(rig.edge.ended().await.code(), Some(0));
    assert_eq!(rig.edge.access()[0]["reason"], "drained");
}

/// A stream whose answer has begun.
async fn begun(rig: &Rig, client: &mut RawH2) -> (u32, super::rig::NodeConn) {
    let id = client.open(&head("GET", HOST, "/live", &[]), true).await;
    let (mut node, _) = rig.asked().await;
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
        .await;
    client.until(id, |a| a.body == b"a").await;
    (id, node)
}
