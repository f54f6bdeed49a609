//! Clients with one WebSocket each, which keep their cookie and come back at the next edge when they are closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::client::{Dial, ws};
use crate::deadline;

/// What the clients saw.
#[derive(Default)]
struct Seen {
    /// Each client's node and edge, while it is connected.
    at: HashMap<usize, (String, usize)>,
    closes: Vec<Instant>,
}

/// The clients; dropping it disconnects them.
pub struct Crowd {
    seen: Arc<Mutex<Seen>>,
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Connects `count` clients, the edges in turn.
    pub async fn enter(dials: &[Dial], count: usize) -> Crowd {
        Self::enter_by(count, |_| dials.to_vec()).await
    }

    /// As [`Crowd::enter`]; `dials` gives each client its ways to the edges.
    pub async fn enter_by(count: usize, dials: impl Fn(usize) -> Vec<Dial>) -> Crowd {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut clients = JoinSet::new();
        for n in 0..count {
            let dials = dials(n);
            let (socket, cookie) = connect(&dials[n % dials.len()], None).await;
            seen.lock().at.insert(n, (socket.node(), n % dials.len()));
            clients.spawn(stay(n, dials, socket, cookie, seen.clone()));
        }
        Crowd {
            seen,
            _clients: clients,
        }
    }

    /// Clients on `n1`, `n2`, `n3`.
    pub fn counts(&self) -> [usize; 3] {
        let seen = self.seen.lock();
        ["n1", "n2", "n3"].map(|name| seen.at.values().filter(|(n, _)| n == name).count())
    }

    /// The node of client `n`, while it is connected.
    pub fn node_of(&self, n: usize) -> Option<String> {
        self.seen.lock().at.get(&n).map(|(node, _)| node.clone())
    }

    /// When clients were closed.
    pub fn closes(&self) -> Vec<Instant> {
        self.seen.lock().closes.clone()
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

async fn connect(dial: &Dial, cookie: Option<String>) -> (ws::Ws, Option<String>) {
    let headers: Vec<_> = cookie.iter().map(|c| ("Cookie", c.as_str())).collect();
    let socket = ws::connect(dial, "/ws/silent", &headers).await;
    let set = socket.response.headers().get("set-cookie");
    let new = set.and_then(|v| v.to_str().ok()?.split(';').next().map(str::to_owned));
    (socket, new.or(cookie))
}

async fn stay(
    n: usize,
    dials: Vec<Dial>,
    mut socket: ws::Ws,
    mut cookie: Option<String>,
    seen: Arc<Mutex<Seen>>,
) {
    let mut edge = n % dials.len();
    loop {
        while let Some(Ok(_)) = socket.socket.next().await {}
        {
            let mut seen = seen.lock();
            seen.at.remove(&n);
            seen.closes.push(Instant::now());
        }
        // An edge that was killed refuses: the client goes on to the next one.
        loop {
            edge = (edge + 1) % dials.len();
            let (dial, kept) = (dials[edge].clone(), cookie.clone());
            // It may also be killed within the upgrade.
            let entered = tokio::spawn(async move {
                dial.try_tcp().await.ok()?;
                Some(connect(&dial, kept).await)
            });
            if let Ok(Some(entered)) = entered.await {
                (socket, cookie) = entered;
                break;
            }
        }
        seen.lock().at.insert(n, (socket.node(), edge));
    }
}
