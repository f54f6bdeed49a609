//! Clients without cookies whose requests go to three edges in turn, while the store serves, is stopped, killed and
//! empty again.
//!
//! In: clients known by address, and by a session's id from an address that changes. Out: requests at a wrong node.
//! `PUSHGATE_TEST_CLIENTS` and `PUSHGATE_TEST_STOPPED` set other numbers of clients and seconds.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::claims::{node_of, state};
use super::three::Three;

/// One of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    /// Known by its address.
    Address(u16),
    /// Known by the id of its session.
    Session(u16),
}

impl Client {
    /// Sends a request to edge `edge`; returns the node that answered. `turn`: how many were sent before.
    async fn ask(self, site: &Three, edge: usize, turn: usize) -> String {
        match self {
            Client::Address(n) => {
                let dial = site.dial(edge).from(address(0, n));
                node_of(&dial, "/hello", &[]).await
            }
            Client::Session(n) => {
                let cookie = format!("session=s{n}-00");
                // Its node chooses the id with its first answer.
                let path = match turn {
                    0 => format!("/hello?cookie={cookie}"),
                    _ => "/hello".to_owned(),
                };
                let sent = [("Cookie", cookie.as_str())];
                let sent = if turn == 0 { &[][..] } else { &sent[..] };
                // Not the address of the request before.
                let dial = site.dial(edge).from(address(1 + turn % 8, n));
                node_of(&dial, &path, sent).await
            }
        }
    }
}

/// The address of client `n`; `group` tells apart those that it changes between.
fn address(group: usize, n: u16) -> Ipv4Addr {
    Ipv4Addr::new(127, 110 + group as u8, (n / 250) as u8, (n % 250) as u8 + 1)
}

/// The clients, and what they saw.
struct Crowd<'s> {
    site: &'s Three,
    /// The node of each client.
    at: BTreeMap<Client, String>,
    turn: usize,
}

impl Crowd<'_> {
    /// Each client sends a request to its next edge. Returns those that reached another node than before.
    async fn turn(&mut self, clients: impl Iterator<Item = Client>) -> Vec<Client> {
        let (site, turn) = (self.site, self.turn);
        let all = clients.map(|client| async move {
            let n = match client {
                Client::Address(n) | Client::Session(n) => usize::from(n),
            };
            (client, client.ask(site, (turn + n) % 3, turn).await)
        });
        self.turn += 1;
        let all = join_all(all).await;
        let mut moved = Vec::new();
        for (client, node) in all {
            let before = self.at.insert(client, node.clone());
            if before.is_some_and(|before| before != node) {
                moved.push(client);
            }
        }
        moved
    }

    /// Turns for this long, at least three. No client may move.
    async fn turns(&mut self, count: u16, time: Duration, what: &str) {
        let (begun, first) = (Instant::now(), self.turn);
        while begun.elapsed() < time || self.turn < first + 3 {
            let moved = self.turn(both(count)).await;
            assert!(moved.is_empty(), "{what}: {moved:?}");
        }
        println!("{what}: {} turns of {} clients", self.turn - first, count);
    }
}

/// `count` clients, half of each kind.
fn both(count: u16) -> impl Iterator<Item = Client> {
    let kinds = |n| [Client::Address(n), Client::Session(n)];
    (0..count / 2).flat_map(kinds)
}

fn number(variable: &str, otherwise: u16) -> u16 {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |n| n.parse().expect("a number"))
}

/// Aim: no request of a client that all edges have seen reaches a wrong node: with the store, while it is stopped for
/// seconds, while it is gone, and while it is empty again. Fails if an edge forgets what it has learned when it loses
/// the store, or takes another edge's late choice for a client that it knows.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_led_astray() {
    let plugins = "{ sticky_session: { preset: diffusion } }, { sticky_ip: { expiry: 1h } }";
    let mut site = Three::start(3, 3, plugins, "").await;
    for n in 0..3 {
        state(&site, n, "ok").await;
    }
    let count = number("PUSHGATE_TEST_CLIENTS", 120);
    let stopped = number("PUSHGATE_TEST_STOPPED", 2);
    let stopped = Duration::from_secs(stopped.into());
    let mut crowd = Crowd {
        site: &site,
        at: BTreeMap::new(),
        turn: 0,
    };
    crowd.turns(count, Duration::ZERO, "served").await;
    site.redis.pause(true);
    crowd.turns(count, stopped, "stopped").await;
    site.redis.pause(false);
    crowd.turns(count, Duration::from_secs(1), "woken").await;
    let Crowd { at, turn, .. } = crowd;
    site.redis.kill();
    let mut crowd = Crowd {
        site: &site,
        at,
        turn,
    };
    crowd.turns(count, Duration::from_secs(1), "killed").await;
    let Crowd { at, turn, .. } = crowd;
    site.redis.again().await;
    let mut crowd = Crowd {
        site: &site,
        at,
        turn,
    };
    crowd.turns(count, Duration::from_secs(2), "empty").await;
    for n in 0..3 {
        state(&site, n, "ok").await;
    }
    crowd.turns(count, Duration::ZERO, "filled again").await;
    let nodes: std::collections::BTreeSet<_> = crowd.at.values().collect();
    assert_eq!(nodes.len(), 3, "all nodes have clients");
}
