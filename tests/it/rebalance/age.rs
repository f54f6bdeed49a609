//! Assignments that reach their maximum age: the cookie, and the flow if configured.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::h1::H1;
use crate::client::ws;
use crate::setup::Setup;

/// The name and value of the first cookie in `set`.
pub fn pair(set: &[&str]) -> String {
    let pair = set.first().and_then(|line| line.split(';').next());
    pair.unwrap_or("none=1").to_owned()
}

/// Aim: D49. With `cut_at_max_age` a stream ends with its assignment, cookie or table, and its client is
/// balanced anew; without it the stream goes on. Fails if the option is ignored, or affects other flows.
#[tokio::test(flavor = "multi_thread")]
async fn flows_are_cut_at_max_age_only_where_asked() {
    for (plugin, cut) in [
        (
            "[{ sticky_cookie: { max_age: 1s, jitter: 0%, cut_at_max_age: true } }]",
            true,
        ),
        (
            "[{ sticky_ip: { max_age: 1s, jitter: 0%, cut_at_max_age: true } }]",
            true,
        ),
        ("[{ sticky_cookie: { max_age: 1s, jitter: 0% } }]", false),
    ] {
        let setup = Setup::with(1, plugin, "").await;
        let mut socket = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
        let start = Instant::now();
        if cut {
            socket.ended().await;
            assert!(start.elapsed() >= Duration::from_millis(900), "{plugin}");
            let reason = |l: &Value| l["reason"] == "expired" && l["protocol"] == "websocket";
            setup
                .edge
                .wait_access("its line", |lines| lines.iter().any(reason))
                .await;
        } else {
            // Bounded wait, twice the age: the flow must not end.
            let held = tokio::time::timeout(Duration::from_secs(2), socket.ended()).await;
            assert!(held.is_err(), "{plugin}");
        }
    }
}

/// Aim: a client that always sends the cookie of its first visit is balanced anew once the cookie is too old,
/// although the client uses it all the time (D43: the date is the edge's). Fails if the client decides the
/// age, or if use renews it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_cookie_ends_with_its_age() {
    let plugin = "[{ sticky_cookie: { max_age: 2s, jitter: 0% } }]";
    let setup = Setup::with(2, plugin, "    balance: round_robin\n").await;
    let first = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    let (start, cookie) = (Instant::now(), pair(&first.cookies()));
    let mut renewed = Vec::new();
    while start.elapsed() < Duration::from_secs(4) {
        let headers = [("Cookie", cookie.as_str())];
        let answer = H1::connect(&setup.plain())
            .await
            .get("/hello", &headers)
            .await;
        let (at, new) = (start.elapsed(), !answer.cookies().is_empty());
        assert!(new || answer.node() == first.node());
        renewed.push((at, new));
    }
    for (at, new) in renewed {
        // Dates have milliseconds. The cookie was issued before its answer arrived.
        assert!(
            !new || at >= Duration::from_millis(1_900),
            "too early: {at:?}"
        );
        assert!(
            new || at <= Duration::from_millis(2_100),
            "too late: {at:?}"
        );
    }
}

/// Aim: D65. Forty addresses arrive at once, as after a storm; with `jitter` the edge cuts them at `max_age`
/// one after the other. Fails if all assignments of a table live equally long.
#[tokio::test(flavor = "multi_thread")]
async fn jitter_spreads_cuts_at_max_age() {
    for (jitter, spread) in [("60%", true), ("0%", false)] {
        let plugin =
            format!("[{{ sticky_ip: {{ max_age: 3s, jitter: {jitter}, cut_at_max_age: true }} }}]");
        let setup = Setup::with(1, &plugin, "").await;
        let start = Instant::now();
        let mut sockets = Vec::new();
        for n in 1..=40 {
            let dial = setup.plain().from(setup.block.client(n));
            sockets.push(ws::connect(&dial, "/ws/echo", &[]).await);
        }
        let opened = start.elapsed();
        let ends = sockets.into_iter().map(|mut socket| {
            tokio::spawn(async move {
                socket.ended().await;
                start.elapsed()
            })
        });
        let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
        for end in ends.collect::<Vec<_>>() {
            let end = end.await.expect("an end");
            (least, most) = (least.min(end), most.max(end));
        }
        // With jitter 1.8 s apart, and the edge checks twice a second. Without, as far apart as they came,
        // and one check.
        let apart = most - least;
        let is_spread = apart >= opened + Duration::from_millis(900);
        assert_eq!(is_spread, spread, "{jitter}: {apart:?}");
        assert!(least >= Duration::from_millis(1_100), "{jitter}: {least:?}");
    }
}
