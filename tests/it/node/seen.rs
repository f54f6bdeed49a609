//! What a node has seen, in the order it happened.
//!
//! In: each accept, request and end. Out: the facts that tests assert: which clients used which upstream
//! connection, which are open, when each ended.

use std::collections::BTreeSet;
use std::time::Instant;

/// All connections of a node since its start.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every connection accepted, by id (its index).
    pub connections: Vec<SeenConnection>,
}

/// One connection from the edge or, without an edge, from a client.
#[derive(Clone, Debug)]
pub struct SeenConnection {
    /// Its requests in order.
    pub requests: Vec<SeenRequest>,
    /// When it ended.
    pub closed: Option<Instant>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// When the node had read it.
    pub at: Instant,
    /// Start line and headers exactly as they arrived, with the empty line.
    pub head: Vec<u8>,
    /// Path and query.
    pub target: String,
    /// Value of `X-Client-Id`, which identifies a test's client.
    pub client: Option<String>,
}

impl SeenRequest {
    /// The head as text; invalid UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// All values of a header, in order.
    pub fn header(&self, name: &str) -> Vec<String> {
        self.text()
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }
}

impl SeenConnection {
    /// The clients that used it; more than one is a shared upstream connection.
    pub fn clients(&self) -> BTreeSet<&str> {
        self.requests
            .iter()
            .filter_map(|r| r.client.as_deref())
            .collect()
    }

    /// Whether it carried a flow: requests other than health checks.
    pub fn is_traffic(&self) -> bool {
        self.requests.iter().any(|r| !is_health(&r.target))
    }
}

impl Seen {
    /// All requests except health checks, over all connections, in order of connections.
    pub fn requests(&self) -> Vec<&SeenRequest> {
        self.connections
            .iter()
            .flat_map(|c| &c.requests)
            .filter(|r| !is_health(&r.target))
            .collect()
    }

    /// Connections that carried a flow.
    pub fn traffic(&self) -> Vec<&SeenConnection> {
        self.connections.iter().filter(|c| c.is_traffic()).collect()
    }

    /// Connections that carried a flow and are open now.
    pub fn open_now(&self) -> usize {
        let traffic = self.connections.iter().filter(|c| c.is_traffic());
        traffic.filter(|c| c.closed.is_none()).count()
    }

    /// Connections used by more than one client.
    pub fn shared(&self) -> usize {
        let shared = self.connections.iter().filter(|c| c.clients().len() > 1);
        shared.count()
    }

    pub(super) fn open(&mut self) -> usize {
        self.connections.push(SeenConnection {
            requests: Vec::new(),
            closed: None,
        });
        self.connections.len() - 1
    }

    pub(super) fn close(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.closed = Some(Instant::now());
        }
    }
}

fn is_health(target: &str) -> bool {
    target.starts_with("/health") || target.starts_with("/lightstreamer/healthcheck")
}
