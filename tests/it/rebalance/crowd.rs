//! Clients with one WebSocket each, which keep their cookie and reconnect when they are closed.
//!
//! In: a [`Dial`]. Out: their nodes, and when each was closed on which node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::client::{Dial, ws};
use crate::deadline;

#[derive(Default)]
struct Seen {
    /// Each client's node, while it is connected.
    at: HashMap<usize, String>,
    closes: Vec<(Instant, String)>,
    moves: u64,
}

/// The clients; dropping it disconnects them.
pub struct Crowd {
    seen: Arc<Mutex<Seen>>,
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Connects `count` clients, one after the other.
    pub async fn enter(dial: &Dial, count: usize) -> Crowd {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut clients = JoinSet::new();
        for n in 0..count {
            let (socket, cookie) = connect(dial, None).await;
            seen.lock().at.insert(n, socket.node());
            clients.spawn(stay(n, dial.clone(), socket, cookie, seen.clone()));
        }
        Crowd {
            seen,
            _clients: clients,
        }
    }

    /// Clients on `n1`, `n2`, `n3`.
    pub fn counts(&self) -> [usize; 3] {
        let seen = self.seen.lock();
        ["n1", "n2", "n3"].map(|name| seen.at.values().filter(|n| *n == name).count())
    }

    /// When a client was closed, and on which node.
    pub fn closes(&self) -> Vec<(Instant, String)> {
        self.seen.lock().closes.clone()
    }

    /// How often a client reconnected to another node.
    pub fn moves(&self) -> u64 {
        self.seen.lock().moves
    }

    /// Waits until `count` clients are connected.
    pub async fn settled(&self, count: usize) {
        deadline("all clients to be back", async {
            while self.seen.lock().at.len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// Connects with the cookie; returns the cookie for the next connect.
async fn connect(dial: &Dial, cookie: Option<String>) -> (ws::Ws, Option<String>) {
    let headers: Vec<_> = cookie.iter().map(|c| ("Cookie", c.as_str())).collect();
    let socket = ws::connect(dial, "/ws/silent", &headers).await;
    let set = socket.response.headers().get("set-cookie");
    let new = set.and_then(|v| v.to_str().ok()?.split(';').next().map(str::to_owned));
    (socket, new.or(cookie))
}

async fn stay(
    n: usize,
    dial: Dial,
    mut socket: ws::Ws,
    mut cookie: Option<String>,
    seen: Arc<Mutex<Seen>>,
) {
    loop {
        let node = socket.node();
        closed(&mut socket).await;
        {
            let mut seen = seen.lock();
            seen.at.remove(&n);
            seen.closes.push((Instant::now(), node.clone()));
        }
        (socket, cookie) = connect(&dial, cookie).await;
        let mut seen = seen.lock();
        seen.moves += u64::from(socket.node() != node);
        seen.at.insert(n, socket.node());
    }
}

/// Waits until the socket ends, without a deadline.
async fn closed(socket: &mut ws::Ws) {
    use futures_util::StreamExt;
    while let Some(Ok(_)) = socket.socket.next().await {}
}
