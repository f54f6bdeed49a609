//! A node's sessions in the text protocol of Lightstreamer clients (TLCP 2.5), as far as the clients need it.
//!
//! In: requests below `/lightstreamer` and the WebSocket with the TLCP sub-protocol. Out: sessions that live
//! on this node only; a request for a session of another node is counted and refused. Source: what
//! `lightstreamer-client-node` 9.2.2 sends and expects; Lightstreamer clustering §1 (S and CR), §2.2.1
//! (`<control_link_address>`), §4 (wrong instance).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::node::{Conn, Request};

mod http;
mod session;
mod socket;

pub use session::{Session, Transport};

/// The sessions of one node, and the errors with them.
pub struct Sessions {
    node: String,
    settings: Settings,
    by_id: Mutex<BTreeMap<String, Arc<Session>>>,
    counts: watch::Sender<Counts>,
}

/// Settings of the node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host that clients must use for CR requests; `None`: the one they used. If it ends in `.*`, it is only
    /// a machine's name, below the domain the client used (`<control_link_machine_name>`).
    pub control_link: Option<String>,
    /// Period of updates.
    pub every: Duration,
    /// Silence after which a PROBE is sent.
    pub keepalive: Duration,
    /// Most bytes of a streaming answer before LOOP; `None`: as the client requests.
    pub content_length: Option<usize>,
    /// Whether streams have a Content-Length instead of chunks.
    pub fixed_length: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            control_link: None,
            every: Duration::from_millis(20),
            keepalive: Duration::from_secs(2),
            content_length: None,
            fixed_length: false,
        }
    }
}

/// What happened to a node's sessions.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Sessions created here.
    pub created: usize,
    /// Requests for a session that another node made: broken stickiness.
    pub wrong_node: usize,
    /// Requests for a session that this node made and has ended.
    pub unknown: usize,
    /// Requests other than those that create a session.
    pub rebinds_and_controls: usize,
    /// Transports used, in order of use.
    pub transports: Vec<Transport>,
    /// `LS_cause` of each request that gave one, such as `http.streaming.unavailable`.
    pub causes: Vec<String>,
    /// The client's address for each new session: `X-Forwarded-For`, otherwise the peer.
    pub clients: Vec<String>,
    /// `Host` of each request that creates a session.
    pub create_hosts: Vec<String>,
    /// `Host` of each other request.
    pub control_hosts: Vec<String>,
    /// Messages received.
    pub messages: Vec<String>,
}

impl Counts {
    /// Causes that report a failed or abandoned stream; empty when nothing went wrong.
    pub fn failures(&self) -> Vec<&str> {
        let usual = ["api", "http.loop", "ws.loop"];
        let causes = self.causes.iter().map(String::as_str);
        causes.filter(|cause| !usual.contains(cause)).collect()
    }
}

impl Sessions {
    /// Sessions of the node `node` with default settings.
    pub fn new(node: &str) -> Sessions {
        Self::with(node, Settings::default())
    }

    /// Sessions of the node `node`.
    pub fn with(node: &str, settings: Settings) -> Sessions {
        Sessions {
            node: node.to_owned(),
            settings,
            by_id: Mutex::default(),
            counts: watch::Sender::new(Counts::default()),
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// Waits until what happened satisfies `good`; panics after [`crate::DEADLINE`].
    pub async fn wait(&self, what: &str, good: impl FnMut(&Counts) -> bool) -> Counts {
        let mut rx = self.counts.subscribe();
        let counts = crate::deadline(&format!("{}: {what}", self.node), rx.wait_for(good)).await;
        counts.expect("the sender lives in self").clone()
    }

    /// Ends every session as expired (guide §5.1): their clients create new ones.
    pub fn expire_all(&self) {
        let sessions = std::mem::take(&mut *self.by_id.lock());
        sessions.values().for_each(|s| s.end(session::EXPIRED));
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    fn create(&self, form: &str, transport: Transport, who: &Who) -> Arc<Session> {
        let number = self.counts.borrow().created + 1;
        let id = format!("S{}x{number:04}{:08x}", self.node, fastrand::u32(..));
        let session = Session::start(id.clone(), self.settings.every);
        self.by_id.lock().insert(id, session.clone());
        self.count(|c| {
            c.created += 1;
            c.clients.push(who.client.clone());
            c.create_hosts.push(who.host.clone());
            c.transports.push(transport);
            c.causes
                .extend(crate::node::request::param(form, "LS_cause"));
        });
        session
    }

    /// The session `id`, or the protocol's error code: 20 unknown here, 21 another node's.
    fn find(&self, id: &str) -> Result<Arc<Session>, u32> {
        if let Some(session) = self.by_id.lock().get(id) {
            return Ok(session.clone());
        }
        if id.starts_with(&format!("S{}x", self.node)) {
            self.count(|c| c.unknown += 1);
            return Err(20);
        }
        self.count(|c| c.wrong_node += 1);
        Err(21)
    }

    fn bind(
        &self,
        id: &str,
        form: &str,
        transport: Transport,
        who: &Who,
    ) -> Result<Arc<Session>, u32> {
        self.control(who);
        self.count(|c| {
            c.causes
                .extend(crate::node::request::param(form, "LS_cause"))
        });
        let session = self.find(id)?;
        self.count(|c| c.transports.push(transport));
        Ok(session)
    }

    fn control(&self, who: &Who) {
        self.count(|c| {
            c.rebinds_and_controls += 1;
            c.control_hosts.push(who.host.clone());
        });
    }

    fn end(&self, id: &str) {
        if let Some(session) = self.by_id.lock().remove(id) {
            session.end(session::CLOSED);
        }
    }

    /// The control link in CONOK: `*` for the host that the client used.
    fn control_link(&self, who: &Who) -> String {
        let Some(link) = &self.settings.control_link else {
            return "*".to_owned();
        };
        let host = who.host.split(':').next().unwrap_or_default();
        match (link.strip_suffix('*'), host.split_once('.')) {
            (Some(machine), Some((_, domain))) => format!("{machine}{domain}"),
            _ => link.clone(),
        }
    }

    /// The lines that open every stream of `session`.
    fn greeting(&self, session: &Session, who: &Who) -> String {
        let (id, node) = (&session.id, &self.node);
        let keepalive = self.settings.keepalive.as_millis();
        let link = self.control_link(who);
        let client = &who.client;
        format!(
            "CONOK,{id},50000,{keepalive},{link}\r\nSERVNAME,{node}\r\nCLIENTIP,{client}\r\nCONS,unlimited\r\n"
        )
    }
}

/// The client, and the host name by which it reached the node.
struct Who {
    client: String,
    host: String,
}

impl Who {
    fn of(conn: &Conn, request: &Request) -> Who {
        let peer = || conn.stream.tcp().peer_addr().map(|a| a.ip().to_string());
        let forwarded = request.header("x-forwarded-for").map(str::to_owned);
        Who {
            client: forwarded.or_else(|| peer().ok()).unwrap_or_default(),
            host: request.header("host").unwrap_or_default().to_owned(),
        }
    }
}

/// Answers a request below `/lightstreamer`; false if the connection must end after it.
pub async fn serve(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let who = Who::of(conn, request);
    if request.header("upgrade").is_some() {
        return socket::serve(conn, request, who).await;
    }
    http::serve(conn, request, who).await
}

/// The sub-protocol that the client requests; if the node does not return it, the client falls back to HTTP.
pub const SUBPROTOCOL: &str = "TLCP-2.5.0.lightstreamer.com";
