//! Socket.IO and SignalR, by their real libraries: clients without cookies behind one address are spread, and
//! each session stays on its node.
//!
//! In: two servers and many sessions at once (`tests/js/sessions.js`), each transport. Out: the node that each
//! session reached, and requests that reached a server without their session.
//! Source: Engine.IO protocol, `sid`; SignalR, `connectionToken`; issue 14, section 7.

use std::collections::BTreeMap;

use serde_json::json;

use crate::edge::Edge;
use crate::js::Js;
use crate::setup::HEALTH;
use crate::vip::Block;

/// Sessions of one run, all at once.
const SESSIONS: usize = 12;

/// Two servers of `kind`, and the edge with the preset before them.
struct Rig {
    kind: &'static str,
    block: Block,
    servers: Vec<Js>,
    _edge: Edge,
}

impl Rig {
    async fn start(kind: &'static str) -> Rig {
        let block = Block::claim();
        let mut servers = Vec::new();
        for name in ["n1", "n2"] {
            let at = block.at(&format!("10.0.0.{}:8080", &name[1..]));
            let options = json!({
                "role": "server", "kind": kind, "name": name,
                "host": at.ip().to_string(), "port": at.port(),
            });
            let mut server = Js::run("sessions.js", options, None).await;
            let listens = |e: &[serde_json::Value]| e.iter().any(|e| e["event"] == "listening");
            server.wait("its port", listens).await;
            servers.push(server);
        }
        let yaml = format!(
            "nodes: {{ n1: {{ address: 10.0.0.1:8080 }}, n2: {{ address: 10.0.0.2:8080 }} }}\n\
             pools: {{ p: {{ nodes: [n1, n2], health: {HEALTH} }} }}\n\
             listeners:\n  - {{ name: push, bind: [200.0.0.10:80], mode: http, to: p, \
             plugins: [{{ sticky_session: {{ preset: {kind} }} }}] }}\n"
        );
        let edge = Edge::start(&block, &yaml).await;
        Rig {
            kind,
            block,
            servers,
            _edge: edge,
        }
    }

    /// Runs sessions over `transport`; returns how many each node had.
    async fn sessions(&self, transport: &str) -> BTreeMap<String, usize> {
        let url = format!("http://{}", self.block.at("200.0.0.10:80"));
        let options = json!({
            "role": "client", "kind": self.kind, "url": url,
            "transport": transport, "sessions": SESSIONS, "asks": 5,
        });
        let mut client = Js::run("sessions.js", options, None).await;
        let done = |e: &[serde_json::Value]| e.iter().any(|e| e["event"] == "done");
        client.wait("the end of all sessions", done).await;
        assert_eq!(
            client.of("failed"),
            Vec::<serde_json::Value>::new(),
            "{transport}"
        );
        let mut nodes = BTreeMap::new();
        for session in client.of("session") {
            assert_eq!(session["transport"], transport);
            let node = session["node"].as_str().unwrap_or_default().to_owned();
            *nodes.entry(node).or_default() += 1;
        }
        for server in &self.servers {
            let wrong = server.of("wrong");
            assert!(wrong.is_empty(), "{transport}: {wrong:?}");
        }
        nodes
    }
}

/// Aim: Socket.IO's sessions over polling, and those that change from polling to WebSocket, stay on the node that
/// opened them, and all nodes get some. Fails if the edge does not find `sid` in the open packet, or delays it.
#[tokio::test(flavor = "multi_thread")]
async fn socketio_sessions_stay_on_their_node() {
    let rig = Rig::start("socketio").await;
    for transport in ["polling", "websocket"] {
        let nodes = rig.sessions(transport).await;
        assert_eq!(nodes.values().sum::<usize>(), SESSIONS, "{transport}");
        assert!(nodes.len() == 2, "{transport}: {nodes:?}");
    }
}

/// Aim: SignalR's sessions stay on the node that negotiated them, over each of its transports. Fails if the edge
/// does not find `connectionToken` in the answer to `negotiate`, or takes `connectionId` for it.
#[tokio::test(flavor = "multi_thread")]
async fn signalr_sessions_stay_on_their_node() {
    let rig = Rig::start("signalr").await;
    for transport in ["LongPolling", "ServerSentEvents", "WebSockets"] {
        let nodes = rig.sessions(transport).await;
        assert_eq!(nodes.values().sum::<usize>(), SESSIONS, "{transport}");
        assert!(nodes.len() == 2, "{transport}: {nodes:?}");
    }
}
