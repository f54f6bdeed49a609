//! The hooks of Pingora's `ProxyHttp`: the one place where a request is decided, over HTTP/1 and HTTP/2.
//!
//! In: Pingora's session and the exchange. Out: a node, an answer of our own, edits of both heads. Over
//! HTTP/1 the exchange calls the hooks, with a [`session`] of its own. Over HTTP/2 Pingora calls them. No
//! body passes through here, but for one repair over HTTP/2 (W8).
//! Source: Lightstreamer clustering §2, §3; RFC 9110 §9.2.2 (what may be retried).

pub mod answer;
pub mod assign;
mod heads;
pub mod peek;
pub mod session;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::modules::http::HttpModules;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pushgate_plugins::head::{Edits, Head};
use pushgate_plugins::host;

use self::answer::{answer, diagnose, retry_after, unavailable};
use self::assign::{decide_in_time, known, may_try_another, next_node};
use super::flow::Exchange;
use super::http2::connector::Connector;
use super::request_line::RequestLine;
use crate::observe::end_reason::EndReason;
use crate::route::{Assigned, Decision};

tokio::task_local! {
    /// The exchange Pingora is serving in this task.
    pub static CURRENT: Arc<Exchange>;
}

/// The hooks. Without state: everything is in the exchange.
pub struct ProxyHooks {
    /// Writes the query string into the access log.
    pub log_query: bool,
}

/// The context of the hooks: one request.
pub struct Ctx {
    /// The exchange.
    pub ex: Arc<Exchange>,
    /// The request's head as the client sent it; over HTTP/2 from `early_request_filter` on.
    pub head: Option<Arc<Head>>,
    /// The node decided in `request_filter`, until it is connected.
    pub decided: Option<Assigned>,
    /// HTTP/1: the head that is about to be written; the hook edits it.
    pub edits: Option<Edits>,
    /// Whether the upstream connection served this client before.
    pub reused: bool,
    /// Whether the client's connection ends after the hook's answer; without an answer it ends at once.
    pub close: bool,
    /// HTTP/1: why the exchange ended, and bytes up and down, for `logging`.
    pub end: Option<(EndReason, (u64, u64))>,
    /// HTTP/2: the connector to its node.
    connector: Option<Arc<Connector>>,
}

impl Ctx {
    /// The context of the exchange `ex`.
    pub fn new(ex: Arc<Exchange>, head: Option<Arc<Head>>) -> Self {
        Ctx {
            ex,
            head,
            decided: None,
            edits: None,
            reused: false,
            close: false,
            end: None,
            connector: None,
        }
    }

    /// The request's head.
    ///
    /// Errors: none was read yet, which no hook meets.
    pub fn head(&self) -> Result<Arc<Head>> {
        let head = self.head.clone();
        head.ok_or_else(|| Error::explain(ErrorType::InternalError, "no request"))
    }

    fn reused(&self) -> bool {
        self.reused || self.connector.as_ref().is_some_and(|c| c.reused())
    }
}

#[async_trait]
impl ProxyHttp for ProxyHooks {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let ex = CURRENT
            .try_with(Arc::clone)
            .expect("requests are served inside the scope of CURRENT");
        Ctx::new(ex, None)
    }

    /// None: the default adds a compression module to every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        if ctx.head.is_none() {
            // Pingora's 60 s would close a silent upload (W3).
            session.set_read_timeout(None);
            ctx.head = Some(Arc::new(heads::of_request(session.req_header())?));
        }
        let head = ctx.head()?;
        let path = match self.log_query {
            true => head.origin_form().unwrap_or("/"),
            false => head.path(),
        };
        let sent = head.authority().map(str::as_bytes).or(head.value("host"));
        let sent = std::str::from_utf8(sent.unwrap_or_default()).unwrap_or_default();
        let line = RequestLine::new(head.method(), &host::normalise(sent), path);
        ctx.ex.record.lock().line = line;
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let head = ctx.head()?;
        if !ctx.ex.take_seat(Some(&head)) {
            ctx.ex.ended(EndReason::ClientLimit);
            let later = retry_after(Duration::ZERO);
            return answer(session, ctx, StatusCode::TOO_MANY_REQUESTS, later).await;
        }
        // Over HTTP/1 the exchange has read the prefix.
        if session.is_http2() && peek::is_wanted(&head, &ctx.ex) {
            let prefix = peek::first_bytes(session).await?;
            ctx.ex.record.lock().tries().body_prefix = prefix;
        }
        match decide_in_time(session, ctx).await? {
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
        }
    }

    /// Over HTTP/2 only: Pingora's connector wants an `HttpPeer` (680 bytes), the exchange of HTTP/1 asks
    /// [`next_node`] itself.
    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let assigned = next_node(session, ctx).await?;
        let head = ctx.head()?;
        let connector = Arc::new(Connector::new(&ctx.ex, &head, &assigned));
        ctx.ex.conn.known_to(&assigned.node);
        let mut peer = HttpPeer::new(assigned.node.address, false, String::new());
        peer._address = PingoraAddr::Inet(assigned.node.address);
        // Never equal to another's: Pingora's own pool holds nothing, the affinity does.
        peer.group_key = ctx.ex.flow.id;
        peer.options.custom_l4 = Some(connector.clone());
        ctx.connector = Some(connector);
        Ok(Box::new(peer))
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        _: &mut Ctx,
    ) -> Result<()> {
        // An empty last DATA frame would make Pingora write the chunked end twice (W8).
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        Ok(())
    }

    /// Edits the request on its way to the node: over HTTP/1 in `ctx.edits`, which are applied while the
    /// head is written; `head` is a place holder then.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let mut edits = match ctx.edits.take() {
            Some(edits) => edits,
            None => heads::to_node(head, session.is_http2())?,
        };
        let (assigned, line, random) = known(ctx)?;
        let request = ctx.head()?;
        let facts = ctx.ex.facts(line.host(), Some(&request), random);
        for plugin in &ctx.ex.table.plugins {
            let edited = plugin.request(&facts, &assigned.facts(), &mut edits);
            edited.map_err(|e| failed(plugin.name(), &e))?;
        }
        match session.is_http2() {
            true => heads::write_request(&edits, head)?,
            false => ctx.edits = Some(edits),
        }
        Ok(())
    }

    /// Edits the answer on its way to the client, as [`Self::upstream_request_filter`] does the request.
    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let mut edits = match ctx.edits.take() {
            Some(edits) => edits,
            None if head.status.is_informational() => return Ok(()),
            None => {
                if head.status.is_success() {
                    // An answer may begin before its request is whole: both go on. Behind a refusal
                    // Pingora closes, so that the client need not send the rest.
                    let downstream = session.as_downstream_mut();
                    downstream.set_close_on_response_before_downstream_finish(false);
                }
                heads::of_answer(head)?
            }
        };
        let (assigned, line, random) = known(ctx)?;
        let request = ctx.head()?;
        let facts = ctx.ex.facts(line.host(), Some(&request), random);
        for plugin in &ctx.ex.table.plugins {
            let edited = plugin.response(&facts, &assigned.facts(), &mut edits);
            edited.map_err(|e| failed(plugin.name(), &e))?;
        }
        let status = edits.head().status();
        match session.is_http2() {
            true => heads::write_answer(&edits, head)?,
            false => ctx.edits = Some(edits),
        }
        assigned.node.met.answered(status);
        *ctx.ex.conn.last.lock() = Some(assigned.node.id);
        ctx.ex.record.lock().status = status;
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        mut e: Box<Error>,
    ) -> Box<Error> {
        e.as_up();
        // Without descriptors or memory no other node can be reached either.
        let again = *e.etype() != ErrorType::SocketError && may_try_another(ctx);
        retry(&mut e, again, ctx);
        e
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        ctx: &mut Ctx,
        _: bool,
    ) -> Box<Error> {
        let evicted = ctx.ex.flow.is_evicted();
        let unanswered = !ctx.ex.flow.has_begun() && session.response_written().is_none();
        let upstream = *e.esource() == ErrorSource::Upstream || evicted;
        // An end that we caused says nothing of the node.
        if upstream && !evicted && unanswered && !ctx.reused() {
            assign::broke(ctx);
        }
        let whole = !session.as_ref().retry_buffer_truncated();
        let again = unanswered && upstream && whole && assign::may_repeat(ctx);
        retry(&mut e, again, ctx);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let (reason, status) = diagnose(e, ctx);
        ctx.ex.ended(reason);
        let begun = session
            .response_written()
            .is_some_and(|h| !h.status.is_informational());
        if !begun && assign::hangs_up(ctx, reason) {
            // REFUSED_STREAM would say that nothing was sent (RFC 9113 §8.7).
            session
                .as_downstream_mut()
                .shutdown_with_reason(h2::Reason::CANCEL);
        } else if status > 0 && !begun {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let retry = (status == StatusCode::SERVICE_UNAVAILABLE)
                .then(|| retry_after(Duration::ZERO))
                .flatten();
            let _ = answer(session, ctx, status, retry).await;
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    /// For Pingora's warnings, e.g. of a retry: its own would tell the query, which may hold a password.
    fn request_summary(&self, _: &Session, ctx: &Ctx) -> String {
        let r = ctx.ex.record.lock();
        let (method, host, path) = r.line.parts();
        format!("{method} {path}, host {host}")
    }

    /// Ends the exchange over HTTP/1. Over HTTP/2 it notes the bytes only, because the stream ends later.
    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Ctx) {
        if let Some((reason, bytes)) = ctx.end.take() {
            ctx.ex.close(reason, bytes);
        } else if session.is_http2() {
            let session = session.as_downstream();
            let (up, down) = (session.body_bytes_read(), session.body_bytes_sent());
            ctx.ex.record.lock().body = (up as u64, down as u64);
        }
    }

    /// Pingora's line would show the target with its query, where push clients put passwords.
    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Ctx,
        e: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        log::debug!("{e}");
        true
    }

    /// Pingora's own error lines would repeat the access log, one for each bad request a client sends.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, e: &Error) -> bool {
        log::debug!("{e}");
        true
    }
}

/// Tells Pingora whether to try the request again, and keeps the reason of the failure.
fn retry(e: &mut Error, again: bool, ctx: &Ctx) {
    e.set_retry(again);
    if again {
        let failed = diagnose(e, ctx);
        ctx.ex.record.lock().tries().failed = Some(failed);
    }
}

fn failed(plugin: &str, e: &dyn std::fmt::Display) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(500), format!("{plugin}: {e}"))
}
