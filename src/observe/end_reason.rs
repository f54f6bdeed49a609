//! The end reasons of flows: one closed list for code, access log, metrics and API.
//!
//! `docs/metrics.md` explains each word to operators.

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndReason {
    /// The answer was passed on whole.
    Done,
    /// The client closed the connection.
    ClientClosed,
    /// The client's connection broke.
    ClientFailed,
    /// The node closed a stream or a WebSocket.
    NodeClosed,
    /// The node's connection broke within an answer.
    NodeFailed,
    /// No node could be connected to.
    NodeUnreachable,
    /// This machine had no descriptor, local port or memory left to connect to a node.
    Exhausted,
    /// The node's answer was not legal HTTP.
    BadAnswer,
    /// No node could take the flow.
    NoNode,
    /// Every node was at its limit, and the queue was full or the flow waited too long.
    Busy,
    /// The client's address has as many flows as it may have.
    ClientLimit,
    /// A plugin refused the flow.
    Refused,
    /// A plugin redirected the flow.
    Redirected,
    /// The request was not legal HTTP.
    BadRequest,
    /// The head of a request did not arrive in time.
    HeadTimeout,
    /// The node went Down, or an operator evicted its flows.
    Evicted,
    /// A rebalance closed the flow, so that its client moves to another node.
    Rebalanced,
    /// The flow's assignment reached `max_age`, and `cut_at_max_age` is set.
    Expired,
    /// The process stopped before the flow ended.
    Drained,
    /// A fault of this program.
    Internal,
}

impl EndReason {
    /// Returns the word used in log, metrics and API.
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
