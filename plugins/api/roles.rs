//! The roles of plugins: route flows, stick clients to nodes, edit heads, write a preamble.
//!
//! A plugin implements the trait of each of its roles; most plugins have one role. A method with a default is
//! optional.

use std::net::IpAddr;
use std::time::Instant;

use std::sync::Arc;

use super::{
    Assignment, Claim, EditError, Flow, Forget, Mark, NodeId, Peers, PoolId, Recalled, Route, Watch,
};
use crate::head::Edits;

/// Routes flows to a pool or a node, or answers them.
pub trait Router: Send + Sync {
    /// Decides where the flow goes; the first plugin that answers wins.
    fn route(&self, flow: &Flow<'_>) -> Option<Route>;

    /// Returns the path, below the plugin's block, of the entry by which [`Router::route`] decides on the
    /// flow. Empty: the block as a whole. Called by `pushgate explain`.
    fn rule(&self, _: &Flow<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Returns whether the plugin routes by this host name (normalised). If the certificate of the connection
    /// does not cover such a name, the edge answers 421 (RFC 9110 §15.5.20).
    fn routes_host(&self, _host: &str) -> bool {
        false
    }

    /// Returns whether the edge must read the server name of a TLS connection that passes through.
    fn wants_sni(&self) -> bool {
        false
    }
}

/// Sticks clients to nodes. On a listener without such a plugin, a client connection stays on its node while the
/// node is Up and its limits allow it.
pub trait Sticky: Send + Sync {
    /// Recalls the node of `pool` to which this client is stuck; the first usable answer wins.
    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled>;

    /// Learns the node that a flow of `pool` is about to get, before it is connected. The core calls it for
    /// every flow of a pool whatever `how` says, but never for a pinned one. Each call is paired with one
    /// [`Sticky::ended`]. A flow that is retried elsewhere ends and is learned again.
    ///
    /// Returns another node if the client got one meanwhile (two first flows at once) or must have one
    /// (hash). The core then sends the flow there. `usable` returns whether the core would use a node: of the
    /// pool, Up, not tried yet by this flow. It must not call back into plugins.
    fn learn(
        &self,
        _: &Flow<'_>,
        _pool: PoolId,
        _: &Assignment<'_>,
        _usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        None
    }

    /// Returns whether the first bytes of the request's body would help to recall the client's node. Called
    /// with the head alone. If so, the flow waits for them up to a deadline, if the body has a Content-Length of at
    /// most 64 KiB.
    fn wants_body(&self, _: &Flow<'_>) -> bool {
        false
    }

    /// Returns an observer of the node's answer; called for every try of a flow of `pool` at layer 7.
    fn watch(&self, _: &Flow<'_>, _pool: PoolId, _: &Assignment<'_>) -> Option<Box<dyn Watch>> {
        None
    }

    /// Returns the address under which this plugin files the flow. The core keeps it and passes it to
    /// [`Sticky::ended`], when the head no longer exists.
    fn client(&self, flow: &Flow<'_>) -> IpAddr {
        flow.client.ip()
    }

    /// Notes the end of a learned flow, so that a table knows which entries have live flows. `client` is the
    /// result of [`Sticky::client`] for the flow.
    fn ended(&self, _client: IpAddr, _pool: PoolId, _now: Instant) {}

    /// Forgets a share of the assignments, because their node is rebalanced. The same rule may come again
    /// with a larger share.
    fn forget(&self, _: &Forget) {}

    /// Forgets one client's assignment to `node`: a rebalance closes the client's flow, and the client must
    /// not come back to that node. `client` is the result of [`Sticky::client`] for the flow.
    fn forget_client(&self, _client: IpAddr, _pool: PoolId, _node: NodeId) {}

    /// Returns the mark of the assignment that this flow got; `None`: the plugin remembers nothing of it.
    /// Called after [`Sticky::learn`], unless a plugin of the listener computes, or the node was recalled by a token.
    fn mark(&self, _: &Flow<'_>, _pool: PoolId, _: &Assignment<'_>) -> Option<Mark> {
        None
    }

    /// Returns the client's assignment as the edges of a site share it; `None`: edges agree without sharing it, or
    /// the flow names none.
    fn claim(&self, _: &Flow<'_>, _pool: PoolId) -> Option<Arc<dyn Claim>> {
        None
    }

    /// Shares its table with the other edges of the site from now on.
    fn join(&self, _: &Arc<dyn Peers>) {}

    /// Returns whether assignments are computed. A client that comes back then gets the same node, whatever a
    /// rebalance forgets.
    fn computes(&self) -> bool {
        false
    }
}

/// Edits heads. `Edits` already has the edits of earlier plugins.
pub trait HeadEditor: Send + Sync {
    /// Edits the head on its way to the node.
    ///
    /// Errors: a name or value is not legal.
    fn request(&self, _: &Flow<'_>, _: &Assignment<'_>, _: &mut Edits) -> Result<(), EditError> {
        Ok(())
    }

    /// Edits the head of a node's final answer, or of its 101, on its way to the client. Interim answers and the edge's
    /// own answers do not pass here. Errors as for [`HeadEditor::request`].
    fn response(&self, _: &Flow<'_>, _: &Assignment<'_>, _: &mut Edits) -> Result<(), EditError> {
        Ok(())
    }
}

/// Writes the bytes that a node reads first (PROXY protocol).
pub trait Preamble: Send + Sync {
    /// Appends the bytes that the node reads before the client's. Called when an upstream connection opens. That
    /// connection may carry many requests, so `Flow` has no head here.
    fn preamble(&self, flow: &Flow<'_>, out: &mut Vec<u8>);
}
