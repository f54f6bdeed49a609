//! Decides each request of HTTP/1 and HTTP/2, in the hooks of Pingora's `ProxyHttp`.
//!
//! In: Pingora's session and the exchange. Out: a node, an answer of our own, edits of both heads. The
//! exchange calls the hooks with a [`session`] of its own. No body passes through here.
//! Source: Lightstreamer clustering §2, §3; RFC 9110 §9.2.2 (what may be retried).

pub mod answer;
pub mod assign;
mod context;
pub mod peek;
pub mod session;

use async_trait::async_trait;
use http::{HeaderValue, header};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session};
use pushgate_plugins::api::{Assignment, EditError, Flow, HeadEditor};
use pushgate_plugins::head::Edits;
use pushgate_plugins::host;
use pushgate_plugins::spelling::is_forwarding;

use self::answer::{answer, proof_of_name, too_many, unavailable};
use self::assign::{decide_in_time, known, next_node};
pub use self::context::Ctx;
use super::request_line::RequestLine;
use crate::acme;
use crate::observe::access_log;
use crate::observe::end_reason::EndReason;
use crate::route::{Assigned, Decision};

/// The hooks. They have no state: the exchange holds all of it.
pub struct ProxyHooks {
    /// Whether the access log shows the query string.
    pub log_query: bool,
}

#[async_trait]
impl ProxyHttp for ProxyHooks {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        unreachable!("an exchange makes the context of its hooks")
    }

    async fn early_request_filter(&self, _: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let head = ctx.head()?;
        let path = match self.log_query {
            true => head.origin_form().unwrap_or("/"),
            false => head.path(),
        };
        let sent = head.authority().map(str::as_bytes).or(head.value("host"));
        let sent = std::str::from_utf8(sent.unwrap_or_default()).unwrap_or_default();
        // Only the access line needs it, and a silent flow would keep it.
        let agent = head.value("user-agent").filter(|_| access_log::is_on());
        let host = host::normalise(sent);
        let line = RequestLine::new(head.method(), &host, path, agent.unwrap_or_default());
        ctx.ex.record.lock().line = line;
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let head = ctx.head()?;
        if let Some(proof) = acme::http_answer(head.path()) {
            return proof_of_name(session, ctx, proof).await;
        }
        let has_seat = ctx.ex.take_seat(Some(&head));
        // What is refused waits too, because a refusal also costs the edge time.
        if let Some(turn) = ctx.ex.turn(&head) {
            turn.await;
        }
        if !has_seat {
            return too_many(session, ctx).await;
        }
        match decide_in_time(ctx).await? {
            Decision::Node(assigned) => {
                ctx.decided = Some(assigned);
                Ok(false)
            }
            Decision::Refuse(status) => {
                ctx.ex.ended(EndReason::Refused);
                answer(session, ctx, status, None).await
            }
            Decision::Redirect(status, to) => {
                ctx.ex.ended(EndReason::Redirected);
                let to = HeaderValue::from_str(&to).ok();
                answer(session, ctx, status, to.map(|v| (header::LOCATION, v))).await
            }
            Decision::NoNode(pool) => unavailable(session, ctx, EndReason::NoNode, pool).await,
            Decision::Wait(pool) => unavailable(session, ctx, EndReason::Busy, Some(pool)).await,
            Decision::Full(_, pool) => unavailable(session, ctx, EndReason::Busy, pool).await,
            Decision::TooMany(_) => too_many(session, ctx).await,
        }
    }

    /// Returns the address of the next node. The exchange calls [`next_node`] instead: an `HttpPeer` has 680
    /// bytes, and our own code connects.
    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let assigned = next_node(ctx).await?;
        let address = assigned.node.address;
        Ok(Box::new(HttpPeer::new(address, false, String::new())))
    }

    /// Edits the head of the request for the node, in `ctx.edits`. The edits are applied while the head is
    /// written. Pingora's head is a placeholder.
    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        _: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if ctx.ex.table.hides_forwarding
            && let Some(edits) = &mut ctx.edits
        {
            edits.retain(|name, _| !is_forwarding(name.as_bytes()));
        }
        edit(ctx, |editor, flow, to, head| editor.request(flow, to, head))?;
        if access_log::is_on()
            && let Some(edits) = &ctx.edits
        {
            let id = edits.values(X_REQUEST_ID).next();
            ctx.ex.record.lock().request_id = id.and_then(request_id);
        }
        Ok(())
    }

    /// Edits the head of the answer for the client, as [`Self::upstream_request_filter`] does for the request.
    /// Counts the answer for passive health, and notes the node for the connection's next request.
    async fn response_filter(
        &self,
        _: &mut Session,
        _: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let assigned = edit(ctx, |editor, flow, to, head| {
            editor.response(flow, to, head)
        })?;
        let status = ctx.edits.as_ref().map_or(0, |edits| edits.head().status());
        assigned.node.passive_health.answered(status);
        *ctx.ex.conn.last.lock() = Some(assigned.node.id);
        ctx.ex.record.lock().status = status;
        Ok(())
    }

    /// Ends the exchange with the reason and the byte counts in `ctx.end`; without them it does nothing.
    async fn logging(&self, _: &mut Session, _: Option<&Error>, ctx: &mut Ctx) {
        if let Some((reason, bytes)) = ctx.end.take() {
            ctx.ex.close(reason, bytes);
        }
    }
}

/// Lets each plugin that edits heads edit the one in `ctx.edits`. Returns the flow's assignment.
///
/// Errors: 500 if a plugin fails.
fn edit(
    ctx: &mut Ctx,
    each: impl Fn(&dyn HeadEditor, &Flow<'_>, &Assignment<'_>, &mut Edits) -> Result<(), EditError>,
) -> Result<Assigned> {
    let mut edits = ctx.edits()?;
    let (assigned, line, random) = known(ctx)?;
    let request = ctx.head()?;
    let facts = ctx.ex.facts(line.host(), Some(&request), random);
    for editor in &ctx.ex.table.plugins.editors {
        let edited = each(&**editor, &facts, &assigned.facts(), &mut edits);
        edited.map_err(|e| failed(editor.name, &e))?;
    }
    ctx.edits = Some(edits);
    Ok(assigned)
}

/// Header with the number of a request, which sites pass from hop to hop.
const X_REQUEST_ID: &str = "x-request-id";

/// Returns a request's id for the log: at most 128 bytes of text.
fn request_id(value: &[u8]) -> Option<Box<str>> {
    let value = std::str::from_utf8(value.get(..MAX_ID).unwrap_or(value)).ok()?;
    Some(value.into())
}

/// Longest id in the log, in bytes: four times that of a UUID.
const MAX_ID: usize = 128;

fn failed(plugin: &str, e: &dyn std::fmt::Display) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(500), format!("{plugin}: {e}"))
}
