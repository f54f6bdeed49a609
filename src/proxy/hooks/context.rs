//! State that the hooks of one request share.

use std::sync::Arc;

use pingora::{Error, ErrorType, Result};
use pushgate_plugins::head::{Edits, Head};

use crate::observe::end_reason::EndReason;
use crate::proxy::flow::Exchange;
use crate::route::Assigned;

/// The context of the hooks for one request.
pub struct Ctx {
    /// The exchange.
    pub ex: Arc<Exchange>,
    /// The request's head as the client sent it.
    pub head: Option<Arc<Head>>,
    /// The node chosen in `request_filter`, until it is connected.
    pub decided: Option<Assigned>,
    /// The head that is about to be written, for the hook to edit.
    pub edits: Option<Edits>,
    /// Whether the upstream connection has served this client before.
    pub reused: bool,
    /// Whether the client's connection ends after the hook's answer. If the hook wrote no answer, it ends at
    /// once.
    pub close: bool,
    /// Input of `logging`: the end reason, and bytes to the node and to the client.
    pub end: Option<(EndReason, (u64, u64))>,
}

impl Ctx {
    /// Makes the context of the exchange `ex`.
    pub fn new(ex: Arc<Exchange>, head: Option<Arc<Head>>) -> Self {
        Ctx {
            ex,
            head,
            decided: None,
            edits: None,
            reused: false,
            close: false,
            end: None,
        }
    }

    /// Returns the request's head.
    ///
    /// Errors: no head was read yet. No hook is called before that.
    pub fn head(&self) -> Result<Arc<Head>> {
        let head = self.head.clone();
        head.ok_or_else(|| {
            Error::explain(
                ErrorType::InternalError,
                "a hook ran before the request's head",
            )
        })
    }

    /// Takes the head that is about to be written.
    ///
    /// Errors: there is no such head. No edit hook is called without one.
    pub(super) fn edits(&mut self) -> Result<Edits> {
        let edits = self.edits.take();
        edits.ok_or_else(|| {
            Error::explain(ErrorType::InternalError, "an edit hook ran without a head")
        })
    }
}
