//! Bounds of the configuration's values: one type for each, with its reason. A field names its type.
//!
//! Faults take the bounds from these types, and a test compares `docs/configuration.md` with them.

use pushgate_plugins::bounds::{Seconds, Size, Whole};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A port that can be connected to.
pub(super) type Port = Whole<1, 65_535>;
/// Versions of the PROXY protocol.
pub(super) type ProxyVersion = Whole<1, 2>;
/// Weight: shares finer than a thousandth mean nothing, and sums stay far from overflow.
pub(super) type Weight = Whole<0, 1000>;
/// Checks in a row; with more a node's state would lag by minutes.
pub(super) type Row = Whole<1, 100>;
/// Most bytes sent to an agent: a name, not a request.
pub(super) const MAX_AGENT_TEXT: usize = 256;
/// Failed flows in a row of a node.
pub(super) type Failures = Whole<1, 10_000>;
/// Other nodes tried: each costs the client up to `connect_timeout`.
pub(super) type Retries = Whole<0, 16>;
/// Most other nodes tried for an unanswered request, because the request may make each of them fail.
pub(super) const MAX_RETRY_UNANSWERED: u32 = 10;
/// Flows that wait for one pool: no edge has more connections.
pub(super) type Queue = Whole<0, 1_000_000>;
/// Older ticket keys: the key name in each ticket is compared with all of them.
pub(super) type TicketKeys = Whole<0, 15>;
/// Bytes of a flow that the edge holds. It treats less than 16 KiB as 16 KiB, and more than 4 MiB as 4 MiB
/// (docs/decisions/0013-split-of-max-hidden.md).
pub(super) type Hidden = Size<{ 4 * KIB }, { 16 * MIB }>;
/// Bytes of a request's head and target: memory that each connection may use.
pub(super) type Head = Size<1, MIB>;
/// Header lines of a request: the parser has room for 256.
pub(super) type Headers = Whole<1, 256>;
/// Streams of one HTTP/2 connection: their windows fit into that of the connection (2 GiB).
pub(super) type Streams = Whole<1, 10_000>;
/// The table of an HTTP/2 client's heads: memory that each connection may use.
pub(super) type Table = Size<0, { 64 * KIB }>;
/// Frames of one kind in 10 s: a higher limit would stop no attack.
pub(super) type Frames = Whole<10, 1_000_000>;
/// The range of Linux's TCP_KEEPIDLE.
pub(super) type Keepalive = Seconds<1, 32_767>;
/// Most paths in a list: each request is compared with all of them.
pub(super) const MAX_PATHS: usize = 64;
/// Most DNS servers: a lookup ends before it gets past the first few.
pub(super) const MAX_SERVERS: usize = 8;
