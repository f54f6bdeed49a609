//! Defaults of the configuration: one constant for each, with its reason. `docs/defaults.md` repeats them.
//! Those of certificates are in `credentials`, those of plugins beside the plugins.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::units::{Bytes, Rate, Share, Span};

const fn seconds(n: u64) -> Span {
    Span(Duration::from_secs(n))
}

/// Client connections at once. Each takes two descriptors; a service's usual hard limit is 524,288.
pub const MAX_CONNECTIONS: usize = 200_000;
/// Part of the connections, descriptors and ports of the process that one client may hold. Whatever it does, something
/// is left to others: of 20,000 descriptors a thousand, of 524,288 26,000. Not less, because one address may stand
/// for all clients: a carrier's, or that of a balancer that names none.
pub const CLIENT_SHARE: Share = Share(0.95);
/// Memory above which new clients are refused. A fifth is left for what live flows need meanwhile, and for other
/// processes: the kernel ends the whole process where nothing is left.
pub const MEMORY_LIMIT: Share = Share(0.8);
/// Connections of one client address at a listener: five thousand people behind the address of an office, two
/// connections each. One hostile address then has a twentieth of 200,000 connections.
pub const MAX_CONNECTIONS_PER_CLIENT: usize = 10_000;
/// Live flows of one client address at a listener: as many as connections. Without this an HTTP/2 client could
/// begin a hundred on each.
pub const MAX_FLOWS_PER_CLIENT: usize = 10_000;
/// Time between "not ready" and the closing of the listeners. None: without a balancer in front, the listeners of a
/// process that stops should be free at once.
pub const DRAIN_DELAY: Span = seconds(0);
/// New connections of one client address in a second, at least. A full TLS handshake takes half a millisecond, so that
/// one client has a fifth of a core. The kernel keeps the local port of a connection to a node for 60 s after its end:
/// at this rate one client keeps 24,000 of 28,232 ports towards a node, and others the rest.
pub const CONNECTION_RATE: Rate = Rate::a_second(400);
/// All connections that a client may hold come back within this time at the default rate: ten thousand people behind
/// one address after 25 s. One core needs 5 s for their handshakes alone. Whoever allows a client more connections,
/// because a balancer hides all clients behind its address, thereby allows more of them in a second.
pub const CONNECTIONS_RENEWED: Span = seconds(25);
/// New requests of one client address in a second, at least. A request takes some 50 µs, so that one client has a tenth
/// of a core. One that opens a connection to its node takes 200 µs and a local port, and five turns: so there are as
/// many as new connections.
pub const REQUEST_RATE: Rate = Rate::a_second(2000);
/// All flows that a client may have begin anew within this time at the default rate: ten thousand people behind one
/// address may each poll every 5 s.
pub const FLOWS_RENEWED: Span = seconds(5);
/// How long live flows may go on after a stop signal: a working day's streams end in an hour by themselves.
pub const DRAIN_DEADLINE: Span = seconds(3600);
/// A TLS handshake takes two round trips; ten seconds is generous for a mobile client.
pub const HANDSHAKE_TIMEOUT: Span = seconds(10);
/// Key exchange groups, best first. The hybrid protects recorded traffic from later quantum computers.
pub const GROUPS: [&str; 4] = ["X25519MLKEM768", "X25519", "P-256", "P-384"];
/// Mozilla's intermediate ciphers of TLS 1.2 without finite-field Diffie-Hellman. No client of the last ten years needs
/// that key exchange, and it costs a server most.
pub const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
/// Longest wait of a flow for the site's store: several round trips within a place, and nothing that a person notices.
pub const STATE_WAIT: Span = Span(Duration::from_millis(5));
/// Begin of the names of keys in the site's store.
pub const STATE_PREFIX: &str = "pushgate";
/// Time for which a ticket key seals. Whoever steals the key can read what was recorded in that time.
pub const TICKET_ROTATE: Span = seconds(12 * 3600);
/// Most older ticket keys that still open: one for the tickets of the last 2 h, and one for a rotation that
/// follows another at once.
pub const TICKET_KEEP: usize = 2;
/// A session ticket lives this long, and so does a key after it has sealed its last one: long enough for a
/// storm of reconnects, and OpenSSL's own default.
pub const TICKET_LIFETIME: Span = seconds(2 * 3600);
/// First to last byte of a request's head: a guard against slow senders, never against silence.
pub const HEAD_TIMEOUT: Span = seconds(10);
/// Most bytes of one flow that proxy and sockets hold when the client stops reading. With 32 KiB a push
/// server notices a slow client within one or two messages; other proxies hide 4 MiB by default.
pub const MAX_HIDDEN: Bytes = Bytes(32 * 1024);
/// Most bytes of a request's head: large cookies fit, a flood does not.
pub const MAX_HEAD: Bytes = Bytes(32 * 1024);
/// Most bytes of a request's target: more than any push client's query.
pub const MAX_TARGET: Bytes = Bytes(16 * 1024);
/// Most header lines of a request; the parser has room for 256.
pub const MAX_HEADERS: usize = 100;
/// Streams of one HTTP/2 connection at once: browsers expect it, and RFC 9113 §6.5.2 asks for at least 100.
pub const HTTP2_STREAMS: u32 = 100;
/// Dynamic table for the heads of an HTTP/2 client: RFC 7541's own default.
pub const HTTP2_HEADER_TABLE: Bytes = Bytes(4 * 1024);
/// Streams that an HTTP/2 client may reset before their answer begins, in ten seconds. Leaving a page resets
/// some dozens once; a rapid reset attack resets as many in a blink.
pub const HTTP2_RESETS: u32 = 50;
/// Pings of an HTTP/2 client in ten seconds: gRPC clients send several a second while they measure.
pub const HTTP2_PINGS: u32 = 500;
/// Changes of an HTTP/2 client's settings in ten seconds: browsers send none after the first.
pub const HTTP2_SETTINGS: u32 = 50;
/// Empty DATA frames of an HTTP/2 client in ten seconds. A frame that ends a stream does not count.
pub const HTTP2_EMPTY_FRAMES: u32 = 500;
/// Silence before the first keep-alive probe: below the 60 s after which NAT boxes forget.
pub const KEEPALIVE: Span = seconds(30);
/// Longest time sent data may stay unacknowledged towards a node, which is on the same network.
pub const NODE_USER_TIMEOUT: Span = seconds(10);
/// Longest time sent data may stay unacknowledged towards a client: a mobile client in a tunnel is back
/// sooner. A client that keeps its window closed, but answers probes, stays.
pub const CLIENT_USER_TIMEOUT: Span = seconds(60);
/// Deadline of connecting to a node, which is on the same network.
pub const CONNECT_TIMEOUT: Span = seconds(1);
/// Period of health checks: finds a dead node before its clients give up.
pub const HEALTH_INTERVAL: Span = seconds(1);
/// Deadline of one health check: a node that needs longer is of no use to a stream.
pub const HEALTH_TIMEOUT: Span = Span(Duration::from_millis(500));
/// Passed checks in a row that make a node Up: one may be luck.
pub const HEALTH_RISE: u32 = 2;
/// Failed checks in a row that make a node Down: one may be noise.
pub const HEALTH_FALL: u32 = 2;
/// Longest hold of a node that flaps: its clients do not follow each turn, and a repaired node is soon back.
pub const HOLD_DOWN: Span = seconds(60);
/// Failed flows in a row that make a node Down, with `passive`: one client's bad luck is not enough.
pub const FAILURES: u32 = 5;
/// Pause between two questions to a node's agent: a share of the flows need not follow faster.
pub const AGENT_INTERVAL: Span = seconds(2);
/// Deadline of an agent's answer: it may run a command to find it.
pub const AGENT_TIMEOUT: Span = seconds(1);
/// Other nodes tried after a failed connect: each may cost the client `connect_timeout`.
pub const RETRIES: u32 = 2;
/// Other nodes tried for a request that a node got and did not answer. With one, a request that kills its
/// node reaches at most two nodes.
pub const RETRY_UNANSWERED: u32 = 1;
/// Flows that wait for a node: as many as a large edge gets when a node dies. Waiting costs no more than the
/// connection.
pub const QUEUE: u32 = 10_000;
/// Longest wait for a node: push clients give up after 5 to 10 s.
pub const QUEUE_TIMEOUT: Span = seconds(4);
/// A node's share: all are equal.
pub const WEIGHT: u32 = 1;
/// Rights of a Unix socket's file: other users of the machine cannot connect.
pub const UNIX_MODE: u32 = 0o660;
/// Status of an HTTP check that passes.
pub const STATUS: u16 = 200;
/// Longest wait for the beginning of a body that a plugin routes by: a form follows its head in the same
/// segment or the next.
pub const BODY_PREFIX_TIMEOUT: Span = seconds(1);
/// `Retry-After` of a 503, in seconds, before jitter.
pub const RETRY_AFTER: Span = seconds(2);
/// Longest wait for one DNS server: it is on the same network, and the edge asks another next.
pub const DNS_TIMEOUT: Span = seconds(1);
/// Shortest life of an answer: some servers send a TTL of 0, and would be asked without pause.
pub const MIN_TTL: Span = seconds(1);
/// Longest life of an answer: a node that moved is found within five minutes, whatever its TTL.
pub const MAX_TTL: Span = seconds(300);
/// How long a node that left the answer stays without a flow: a client between two polls still finds it.
pub const LINGER: Span = seconds(60);
/// Clients moved in a second by a rebalance. Each opens a new session; no node notices fifty a second.
pub const REBALANCE_RATE: Rate = Rate::a_second(50);
/// Flows that a node may have beyond its share. A smaller tolerance would move clients because of chance.
pub const REBALANCE_TOLERANCE: Share = Share(0.05);
/// Time from the last return to an automatic rebalance: a node that flaps moves no client.
pub const REBALANCE_DELAY: Span = seconds(30);

macro_rules! functions {
    ($($name:ident: $type:ty = $value:expr;)+) => { $(pub(super) fn $name() -> $type { $value })+ };
}

functions! {
    max_connections: NonZeroUsize = NonZeroUsize::new(MAX_CONNECTIONS).expect("a constant above zero");
    client_share: Share = CLIENT_SHARE;
    max_connections_per_client: NonZeroUsize = NonZeroUsize::new(MAX_CONNECTIONS_PER_CLIENT).expect("a constant above zero");
    max_flows_per_client: NonZeroUsize = NonZeroUsize::new(MAX_FLOWS_PER_CLIENT).expect("a constant above zero");
    drain_delay: Span = DRAIN_DELAY;
    drain_deadline: Span = DRAIN_DEADLINE;
    handshake_timeout: Span = HANDSHAKE_TIMEOUT;
    head_timeout: Span = HEAD_TIMEOUT;
    max_hidden: Bytes = MAX_HIDDEN;
    max_head: Bytes = MAX_HEAD;
    max_target: Bytes = MAX_TARGET;
    max_headers: usize = MAX_HEADERS;
    http2_streams: u32 = HTTP2_STREAMS;
    http2_header_table: Bytes = HTTP2_HEADER_TABLE;
    http2_resets: u32 = HTTP2_RESETS;
    http2_pings: u32 = HTTP2_PINGS;
    http2_settings: u32 = HTTP2_SETTINGS;
    http2_empty_frames: u32 = HTTP2_EMPTY_FRAMES;
    keepalive: Span = KEEPALIVE;
    client_user_timeout: Span = CLIENT_USER_TIMEOUT;
    node_user_timeout: Span = NODE_USER_TIMEOUT;
    connect_timeout: Span = CONNECT_TIMEOUT;
    health_interval: Span = HEALTH_INTERVAL;
    health_timeout: Span = HEALTH_TIMEOUT;
    health_rise: u32 = HEALTH_RISE;
    health_fall: u32 = HEALTH_FALL;
    hold_down: Span = HOLD_DOWN;
    failures: u32 = FAILURES;
    agent_interval: Span = AGENT_INTERVAL;
    agent_timeout: Span = AGENT_TIMEOUT;
    retries: u32 = RETRIES;
    retry_unanswered: u32 = RETRY_UNANSWERED;
    rebalance_rate: Rate = REBALANCE_RATE;
    rebalance_tolerance: Share = REBALANCE_TOLERANCE;
    rebalance_delay: Span = REBALANCE_DELAY;
    dns_timeout: Span = DNS_TIMEOUT;
    min_ttl: Span = MIN_TTL;
    max_ttl: Span = MAX_TTL;
    linger: Span = LINGER;
    weight: u32 = WEIGHT;
    queue: u32 = QUEUE;
    queue_timeout: Span = QUEUE_TIMEOUT;
    ticket_rotate: Span = TICKET_ROTATE;
    ticket_keep: usize = TICKET_KEEP;
    state_wait: Span = STATE_WAIT;
    yes: bool = true;
}
