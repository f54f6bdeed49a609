//! Real Lightstreamer clients whose connections are spread over three edges, as routers (ECMP) and DNS spread them.
//!
//! In: sessions without cookies, from one address; each connection goes to the next edge. Out: requests that reached a
//! node without their session. Source: Lightstreamer clustering §2, §4; docs/scale.md.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::claims::state;
use super::three::Three;
use crate::js::Js;

/// Sends each connection to the next of `edges`. Returns where it listens, and how many each edge has got.
async fn spread(edges: [SocketAddr; 3]) -> (SocketAddr, Arc<[AtomicUsize; 3]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = listener.local_addr().expect("an address");
    let got = Arc::<[AtomicUsize; 3]>::default();
    let counts = got.clone();
    tokio::spawn(async move {
        for n in (0..3).cycle() {
            let Ok((mut client, _)) = listener.accept().await else {
                return;
            };
            counts[n].fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut edge = TcpStream::connect(edges[n]).await?;
                copy_bidirectional(&mut client, &mut edge).await
            });
        }
    });
    (at, got)
}

/// Aim: streaming and polling clients, whose connections go to all edges in turn, keep their sessions. Fails if an edge
/// balances a session that it has not seen begin: every second request would reach a wrong node.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay_whichever_edge_is_asked() {
    let plugins = "{ sticky_session: { preset: lightstreamer } }";
    let site = Three::start(3, 3, plugins, "").await;
    for n in 0..3 {
        state(&site, n, "ok").await;
    }
    let edges = [0, 1, 2].map(|n| site.dial(n).to);
    let (at, got) = spread(edges).await;
    let transports = ["HTTP-STREAMING", "HTTP-POLLING", "WS-STREAMING"];
    let clients = (0..9).map(|n| {
        let options = json!({ "server": format!("http://{at}"), "transport": transports[n % 3] });
        async move {
            let mut client = Js::start(options, None).await;
            client.updates(60).await;
            client.message(&format!("from {n}")).await;
            client.updates(120).await;
            let (lost, error) = (client.of("lost").len(), client.of("error").len());
            client.end().await;
            lost + error
        }
    });
    let wrong: usize = join_all(clients).await.into_iter().sum();
    let counts: Vec<_> = site.nodes.iter().map(|n| n.sessions().counts()).collect();
    let sum = |of: fn(&crate::tlcp::Counts) -> usize| counts.iter().map(of).sum::<usize>();
    let strays = (sum(|c| c.wrong_node), sum(|c| c.unknown));
    assert_eq!((wrong, strays), (0, (0, 0)), "{counts:?}");
    assert_eq!(sum(|c| c.created), 9);
    assert!(counts.iter().all(|c| c.created > 0), "spread: {counts:?}");
    let got = [0, 1, 2].map(|n| got[n].load(Ordering::Relaxed));
    assert!(
        got.iter().all(|n| *n >= 9),
        "connections at each edge: {got:?}"
    );
}

/// Aim: the same while the store is stopped, killed and empty again, once each edge has seen the session. Fails if an
/// edge forgets a session with the store.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay_without_the_store() {
    let plugins = "{ sticky_session: { preset: lightstreamer } }";
    let mut site = Three::start(3, 3, plugins, "").await;
    for n in 0..3 {
        state(&site, n, "ok").await;
    }
    let edges = [0, 1, 2].map(|n| site.dial(n).to);
    let mut clients = Vec::new();
    for transport in ["HTTP-STREAMING", "HTTP-POLLING", "WS-STREAMING"] {
        let (at, got) = spread(edges).await;
        let options = json!({ "server": format!("http://{at}"), "transport": transport });
        let mut client = Js::start(options, None).await;
        // A WebSocket needs no other connection.
        for n in 0..50 {
            client.message(&format!("{n}")).await;
            let seen = |n: usize| got[n].load(Ordering::Relaxed) > 0;
            if transport == "WS-STREAMING" || (0..3).all(seen) {
                break;
            }
        }
        clients.push(client);
    }
    for trouble in ["stopped", "goes on", "killed", "empty"] {
        match trouble {
            "stopped" => site.redis.pause(true),
            "goes on" => site.redis.pause(false),
            "killed" => site.redis.kill(),
            _ => site.redis.again().await,
        }
        let end = Instant::now() + Duration::from_secs(2);
        for n in (0..).take_while(|_| Instant::now() < end) {
            let all = clients.iter_mut();
            let text = format!("{trouble} {n}");
            join_all(all.map(|c| c.message(&text))).await;
        }
    }
    let wrong = |c: &Js| c.of("lost").len() + c.of("error").len();
    assert_eq!(clients.iter().map(wrong).sum::<usize>(), 0);
    let counts: Vec<_> = site.nodes.iter().map(|n| n.sessions().counts()).collect();
    assert!(
        counts.iter().all(|c| c.wrong_node + c.unknown == 0),
        "{counts:?}"
    );
}
