//! Why flows end: one closed list for code, access log, metrics and API.
//!
//! `docs/metrics.md` explains each word to operators.

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndReason {
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

impl EndReason {
    /// The word in log, metrics and API.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Done => "done",
            EndReason::ClientClosed => "client_closed",
            EndReason::ClientFailed => "client_failed",
            EndReason::NodeClosed => "node_closed",
            EndReason::NodeFailed => "node_failed",
            EndReason::NodeUnreachable => "node_unreachable",
            EndReason::Exhausted => "exhausted",
            EndReason::BadAnswer => "bad_answer",
            EndReason::NoNode => "no_node",
            EndReason::Busy => "busy",
            EndReason::ClientLimit => "client_limit",
            EndReason::Refused => "refused",
            EndReason::Redirected => "redirected",
            EndReason::BadRequest => "bad_request",
            EndReason::HeadTimeout => "head_timeout",
            EndReason::Evicted => "evicted",
            EndReason::Rebalanced => "rebalanced",
            EndReason::Expired => "expired",
            EndReason::Drained => "drained",
            EndReason::Internal => "internal",
        }
    }
}
