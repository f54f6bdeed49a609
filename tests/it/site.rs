//! Several edges that share a store: a real redis-server, and real edges.

/// Assignments of tables, shared.
mod claims;
/// Clients that come back at another edge each time.
mod crowd;
/// Flows counted at all edges.
mod counts;
/// A way to the store that can be held.
mod gate;
/// Real Lightstreamer clients at all edges.
mod lightstreamer;
/// Orders that hold at all edges.
mod orders;
/// A rebalance of all edges.
mod rebalance;
/// HTTP/2, layer 4, ages, reloads.
mod reach;
/// A real redis-server.
mod redis;
/// A store with rights, TLS, replicas, Sentinel.
mod secured;
/// Three edges in front of the same nodes.
mod three;
/// Requests that go to the edges in turn.
mod turns;
/// A store that is late, full, or forgets while it is asked.
mod trouble;
