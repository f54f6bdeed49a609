//! Why flows end: the words of access log, metrics and API.
//!
//! `docs/metrics.md` explains each to operators.

/// Why a flow ended: one closed list for log, metrics and API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The answer was passed on whole.
    Done,
    /// The client closed.
    ClientClosed,
    /// The client's connection broke.
    ClientFailed,
    /// The node closed a stream or a WebSocket.
    NodeClosed,
    /// The node's connection broke within an answer.
    NodeFailed,
    /// No node could be connected.
    NodeUnreachable,
    /// This machine had no descriptor, local port or memory left to connect to a node.
    Exhausted,
    /// The node's answer was no legal HTTP.
    BadAnswer,
    /// No node could take the flow.
    NoNode,
    /// Every node was at its limit, and too many waited or it waited too long.
    Busy,
    /// Its client's address has as many flows as it may.
    ClientLimit,
    /// A plugin refused it.
    Refused,
    /// A plugin redirected it.
    Redirected,
    /// The request was no legal HTTP.
    BadRequest,
    /// The head did not come in time.
    HeadTimeout,
    /// Its node went Down.
    Evicted,
    /// Closed so that its client moves to another node.
    Rebalanced,
    /// Its assignment reached `max_age`, and `cut_at_max_age` is set.
    Expired,
    /// The proxy stopped before the flow did.
    Drained,
    /// A fault of ours.
    Internal,
}

impl Reason {
    /// The word in log, metrics and API.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Done => "done",
            Reason::ClientClosed => "client_closed",
            Reason::ClientFailed => "client_failed",
            Reason::NodeClosed => "node_closed",
            Reason::NodeFailed => "node_failed",
            Reason::NodeUnreachable => "node_unreachable",
            Reason::Exhausted => "exhausted",
            Reason::BadAnswer => "bad_answer",
            Reason::NoNode => "no_node",
            Reason::Busy => "busy",
            Reason::ClientLimit => "client_limit",
            Reason::Refused => "refused",
            Reason::Redirected => "redirected",
            Reason::BadRequest => "bad_request",
            Reason::HeadTimeout => "head_timeout",
            Reason::Evicted => "evicted",
            Reason::Rebalanced => "rebalanced",
            Reason::Expired => "expired",
            Reason::Drained => "drained",
            Reason::Internal => "internal",
        }
    }
}
