//! A client that sends frames over a socket, the listener that serves it, and its node.
//!
//! Fails if a connection does not end after its client has, if it leaves a task behind, or if its answers are no
//! legal sequence of frames or exceed the client's window.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

use pushgate_plugins::api::{NodeId, Plugins, Target};

use super::node;
use crate::config::{self, OnDown};
use crate::proxy::conn::Conn;
use crate::proxy::hooks::ProxyHooks;
use crate::proxy::listener::Listener;
use crate::proxy::open::Connections;
use crate::proxy::service::Service;
use crate::proxy::threads::Thread;
use crate::route::Table;
use crate::stream::client_share::{ClientShares, ShareLimits};
use crate::stream::side::Side;
use crate::stream::socket::Tcp;
use crate::upstream::Node;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// The client's last frame: its answer says that all frames before it have been taken.
const PING: &[u8] = &[
    0, 0, 8, 6, 0, 0, 0, 0, 0, b'l', b'a', b's', b't', b'p', b'i', b'n', b'g',
];
/// After so long without an answer no more is waited for.
const QUIET: Duration = Duration::from_millis(2);
/// Bytes that a client takes without a word (RFC 9113 §6.9.2).
const WINDOW: u64 = 65_535;
/// Longest time that a connection may take. A sound one takes a few milliseconds.
const DEADLINE: Duration = Duration::from_secs(4);

thread_local! {
    static EDGE: Edge = Edge::new();
}

/// One listener, and the runtime that serves it.
struct Edge {
    runtime: Runtime,
    socket: TcpListener,
    connections: Connections,
    thread: Thread,
    listener: Arc<Listener>,
    service: Arc<Service>,
    _drain: watch::Sender<bool>,
}

impl Edge {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let bind = || {
            let bound = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
            bound.expect("a port")
        };
        let (socket, of_node) = (bind(), bind());
        let address = of_node.local_addr().expect("bound");
        runtime.spawn(node::serve(of_node));
        let conf: config::Node =
            serde_yaml::from_str(&format!("address: {address}")).expect("a node");
        let node = Node::new("n", &conf, OnDown::Evict, None);
        let count = IntGauge::new("connections", "of the thread").expect("legal");
        let thread = Thread::new(runtime.handle().clone(), count);
        let section =
            "{ name: fuzz, bind: [], mode: http, tls: { certificates: [a], h2_websocket: true } }";
        let conf: config::Listener = serde_yaml::from_str(section).expect("a listener");
        let table = Table {
            plugins: Plugins::default(),
            default: Some(Target::Node(NodeId::of("n"))),
            pools: Arc::default(),
            nodes: Arc::new(HashMap::from([(node.id, node)])),
            hides_forwarding: false,
        };
        let (drain, begun) = watch::channel(false);
        let shares = ClientShares::new(ShareLimits::of(1.0, 1000, 1000, 1000), 1);
        Edge {
            socket,
            connections: Connections::at_most(1000, [thread.clone()].into(), shares),
            thread,
            listener: Listener::new(&conf, table, None),
            service: Arc::new(Service {
                hooks: ProxyHooks { log_query: false },
                drain: begun,
            }),
            runtime,
            _drain: drain,
        }
    }

    async fn pair(&self) -> (TcpStream, Side, Arc<Conn>) {
        let address = self.socket.local_addr().expect("bound");
        let client = TcpStream::connect(address).await.expect("a connection");
        // Ends without waiting: thousands of clients a second would use up the ports.
        SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .expect("SO_LINGER");
        let (inner, peer) = self.socket.accept().await.expect("a connection");
        let open = self
            .connections
            .enter(&self.listener, &self.thread, Some(peer.ip()));
        let open = open.expect("those before have ended");
        let conn = Conn::new(open, Instant::now(), peer, peer, address, None);
        (client, Side::Plain(Tcp::new(inner)), Arc::new(conn))
    }
}

/// Serves a client that sends `data` behind its settings.
pub fn run(data: &[u8]) {
    let sent = [PREFACE, SETTINGS, &whole(data), PING].concat();
    EDGE.with(|edge| {
        edge.runtime.block_on(async {
            let (client, side, conn) = edge.pair().await;
            let left = Arc::downgrade(&conn);
            let served = super::super::serve(side, conn, edge.service.clone());
            let served = async { timeout(DEADLINE, served).await.expect("it ends") };
            let ((), answer) = tokio::join!(served, talk(client, &sent));
            check(&sent, &answer);
            timeout(DEADLINE, gone(&left))
                .await
                .expect("a task is left");
        });
    });
}

/// The frames of `data`, the last one filled up, so that what follows is a frame of its own.
fn whole(data: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut rest = data;
    while let [a, b, c, ..] = rest
        && rest.len() >= 9
    {
        let length = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (frame, behind) = rest.split_at(length.min(rest.len()));
        frames.extend_from_slice(frame);
        // What is longer than any frame may be is refused by its header.
        frames.resize(frames.len() + (length - frame.len()).min(20_000), 0);
        rest = behind;
    }
    frames
}

/// Sends, reads until the last frame is answered, then ends.
async fn talk(mut client: TcpStream, sent: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = client.split();
    let mut answer = Vec::with_capacity(4096);
    let write = async {
        // A connection that was refused takes nothing more.
        let _ = writing.write_all(sent).await;
    };
    let read = async {
        while !answered(&answer) {
            match reading.read_buf(&mut answer).await {
                Ok(n) if n > 0 => {}
                _ => break,
            }
        }
    };
    timeout(DEADLINE, async { tokio::join!(write, read) })
        .await
        .expect("neither an answer nor an end");
    // Requests are answered by their nodes, behind the last frame's answer.
    if frames(sent.get(PREFACE.len()..).unwrap_or_default()).any(|(kind, ..)| kind == 1) {
        while timeout(QUIET, client.read_buf(&mut answer))
            .await
            .is_ok_and(|n| n.is_ok_and(|n| n > 0))
        {}
    }
    let _ = client.shutdown().await;
    let rest = timeout(DEADLINE, client.read_to_end(&mut answer));
    let _ = rest
        .await
        .expect("the connection goes on without its client");
    answer
}

fn answered(answer: &[u8]) -> bool {
    let mut frames = frames(answer);
    frames.any(|(kind, flags, _, payload)| kind == 6 && flags == 1 && payload == &PING[9..])
}

/// Kind, flags, stream and payload of each whole frame.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u8, u32, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, kind, flags, d, e, f, g, rest @ ..] = bytes else {
            return None;
        };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let payload = rest.get(..length)?;
        bytes = &rest[length..];
        Some((*kind, *flags, u32::from_be_bytes([*d, *e, *f, *g]), payload))
    })
}

/// Each frame is of a kind that a server sends, none but a reset follows the end of its stream, and all data fits
/// into the windows that the client has given.
fn check(sent: &[u8], answer: &[u8]) {
    let updates = frames(&sent[PREFACE.len()..]).filter_map(|(kind, _, id, payload)| {
        let more = payload.first_chunk().filter(|_| kind == 8 && id == 0)?;
        Some(u64::from(u32::from_be_bytes(*more) & 0x7fff_ffff))
    });
    let window = WINDOW + updates.sum::<u64>();
    let data = frames(answer).filter(|(kind, ..)| *kind == 0);
    let bytes: usize = data.map(|(.., payload)| payload.len()).sum();
    assert!(bytes as u64 <= window, "{bytes} bytes of data");
    let (mut ended, mut answered) = (HashSet::new(), HashSet::new());
    for (kind, flags, id, payload) in frames(answer) {
        assert!(payload.len() <= 16 * 1024, "a frame of {}", payload.len());
        match kind {
            0 | 1 | 9 => {
                assert!(id % 2 == 1, "a stream that no client begins: {id}");
                assert!(!ended.contains(&id), "stream {id} goes on behind its end");
                assert!(kind != 0 || answered.contains(&id), "data without a head");
                answered.insert(id);
                if flags & 1 != 0 && kind != 9 {
                    ended.insert(id);
                }
            }
            3 => assert!(id % 2 == 1 && payload.len() == 4),
            4 => assert!(id == 0 && payload.len() % 6 == 0),
            6 => assert!(id == 0 && payload.len() == 8),
            7 => assert!(id == 0 && payload.len() >= 8),
            8 => assert!(payload.len() == 4 && payload != [0; 4]),
            _ => panic!("a frame of kind {kind}"),
        }
        if kind == 3 {
            ended.insert(id);
        }
    }
}

/// Ready when no task has the connection any more.
async fn gone(conn: &Weak<Conn>) {
    while conn.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}
