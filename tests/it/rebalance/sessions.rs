//! Sessions stuck by their id, whose clients bind new streams all the time while a rebalance runs.
//!
//! In: clients from one address without cookies. Out: how many sessions were created, which means moved.
//! Source: Lightstreamer clustering §2, §5.1.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{drain, order, progress};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::setup::Setup;

const CLIENTS: usize = 300;
/// Sessions that may move without a close: they were between two streams when the rule reached them.
const BETWEEN: usize = CLIENTS / 50;

/// Creates or binds a session by a stream and keeps the stream for `hold`; returns the session's id.
async fn stream(dial: &Dial, id: Option<&str>, hold: Duration) -> Option<String> {
    let (path, session) = match id {
        None => ("/lightstreamer/create_session.txt", String::new()),
        Some(id) => (
            "/lightstreamer/bind_session.txt",
            format!("LS_session={id}&"),
        ),
    };
    let form = format!("{session}LS_content_length=100000");
    let mut client = H1::connect(dial).await;
    client.send("POST", path, &[], form.as_bytes()).await.ok()?;
    client.head().await.ok()?;
    let mut lines = Vec::new();
    while !lines.contains(&b'\n') {
        lines.extend(client.piece().await.ok()??);
    }
    let text = String::from_utf8_lossy(&lines).into_owned();
    let told = text.strip_prefix("CONOK,")?.split(',').next()?.to_owned();
    let _ = tokio::time::timeout(hold, client.ended()).await;
    Some(told)
}

/// A client for the whole test. It keeps the stream that creates its session longer than later ones, because
/// that is the stream whose session the edge does not know when it begins.
async fn stay(dial: Dial) {
    let mut id = None;
    loop {
        let hold = if id.is_none() {
            1_500..6_000
        } else {
            1_500..3_000
        };
        let hold = Duration::from_millis(fastrand::u64(hold));
        // If the session is not on the node that was asked, the client creates a new one.
        id = stream(&dial, id.as_deref(), hold).await;
    }
}

/// Aim: of 300 sessions on two nodes a third node gets its share. No session moves except those that were
/// closed, although each client binds new streams all the time. (The exact minimum can only be tested on a
/// virtual clock: `src/simulate/tests.rs`.) Fails if the flow that created a session has its own mark: the
/// rule would then select sessions whose flows are not closed, and they would move when they bind.
#[tokio::test(flavor = "multi_thread")]
async fn no_session_moves_beyond_those_due() {
    let plugins = "[{ sticky_session: { preset: lightstreamer } }]";
    let setup = Setup::with(3, plugins, "").await;
    drain(&setup, "n3", "drain").await;
    let dial = setup.plain().from(setup.block.client(1));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(stay(dial.clone()));
    }
    let created = || {
        let of = |n: &crate::node::Node| n.sessions().counts().created;
        setup.nodes.iter().map(of).sum::<usize>()
    };
    deadline("all sessions", async {
        while created() < CLIENTS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drain(&setup, "n3", "up").await;
    order(&setup, "?to_even&rate=50/s&tolerance=5%&close").await;
    // Does not wait for the run's end: the run waits 10 s for clients whose stream was closed while they
    // bound the next one.
    deadline("the close of all sessions that are due", async {
        while progress(&setup).await["state"] == "running" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Bounded wait: every client has bound another stream, and found its session or not.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let end = progress(&setup).await;
    let moved = created() - CLIENTS;
    let closed = end["moved"].as_u64().unwrap_or_default() as usize;
    println!("{moved} sessions moved, {closed} of them closed: {end}");
    assert!(moved >= 80 && moved <= closed + BETWEEN, "{moved}: {end}");
    clients.shutdown().await;
}
