//! Pingora's hooks: facts in, verdicts of the route and the plugins out.
//!
//! No body passes through here but for one repair (W8). Retries, answers of our own and the move
//! into [`Phase::Switching`] of a 101 are decided here.
//! Source: Lightstreamer clustering §2, §3; RFC 9110 §9.2.2 (what may be retried).

mod answer;
mod assign;
mod peek;

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
use pushgate_plugins::host;

use self::answer::{answer, diagnose, retry_after, unavailable};
use self::assign::{again, decide_in_time, known, may_try_another, was_reused};
use super::assign::dialer;
use super::exchange::{CURRENT, Exchange, Reason, RequestLine};
use super::node_head;
use super::request_head::legal_authority;
use crate::route::{Assigned, Decision};
use crate::stream::handoff::Phase;

/// The hooks. Without state: everything is in the exchange.
pub struct Front {
    /// Writes the query string into the access log.
    pub log_query: bool,
}

/// Pingora's context of one request.
pub struct Ctx {
    ex: Arc<Exchange>,
    /// The node decided in `request_filter`, until `upstream_peer` takes it.
    decided: Option<Assigned>,
}

#[async_trait]
impl ProxyHttp for Front {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let ex = CURRENT
            .try_with(Arc::clone)
            .expect("requests are served inside the scope of CURRENT");
        Ctx { ex, decided: None }
    }

    /// None: the default adds a compression module to every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        // Pingora's 60 s would close a silent upload (W3).
        session.set_read_timeout(None);
        if session.req_header().version == http::Version::HTTP_10 {
            // RFC 9110 §15.2: HTTP/1.0 knows no interim answers.
            session.as_downstream_mut().set_ignore_info_resp(true);
        }
        let head = session.req_header();
        let host = authority(head)?;
        let path = match head.uri.path_and_query() {
            Some(p) if self.log_query => p.as_str(),
            Some(p) => p.path(),
            None => "",
        };
        let mut record = ctx.ex.record.lock();
        record.line = RequestLine::new(head.method.as_str(), &host, path);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        if !ctx.ex.take_seat(Some(session.req_header())) {
            ctx.ex.ended(Reason::ClientLimit);
            let later = retry_after(Duration::ZERO);
            return answer(session, ctx, StatusCode::TOO_MANY_REQUESTS, later).await;
        }
        if peek::is_wanted(session, &ctx.ex) {
            let prefix = peek::first_bytes(session).await?;
            ctx.ex.record.lock().tries().body_prefix = prefix;
        }
        match decide_in_time(session, ctx).await? {
            Decision::Node(assigned) => {
                ctx.decided = Some(assigned);
                Ok(false)
            }
            Decision::Refuse(status) => {
                ctx.ex.ended(Reason::Refused);
                answer(session, ctx, status, None).await
            }
            Decision::Redirect(status, to) => {
                ctx.ex.ended(Reason::Redirected);
                answer(
                    session,
                    ctx,
                    status,
                    HeaderValue::from_str(&to)
                        .ok()
                        .map(|v| (header::LOCATION, v)),
                )
                .await
            }
            Decision::NoNode(pool) => unavailable(session, ctx, Reason::NoNode, pool).await,
            Decision::Wait(pool) => unavailable(session, ctx, Reason::Busy, Some(pool)).await,
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let assigned = match ctx.decided.take() {
            Some(assigned) => assigned,
            None => again(session, ctx).await?,
        };
        let ex = &ctx.ex;
        let dialer = Arc::new(dialer(ex, Some(session.req_header()), &assigned));
        ex.conn.known_to(&assigned.node);
        let mut peer = HttpPeer::new(assigned.node.address, false, String::new());
        peer._address = PingoraAddr::Inet(assigned.node.address);
        // Never equal to another's: Pingora's own pool holds nothing, the affinity does.
        peer.group_key = ex.flow.id;
        peer.options.custom_l4 = Some(dialer.clone());
        ex.record.lock().tries().dialer = Some(dialer);
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

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        node_head::correct(head, session.is_http2())?;
        // Pingora passes on `Upgrade: websocket` of what is no upgrade (POST, no `Connection`); a node
        // that took it for one would answer with a 101 we have to refuse (D18).
        if ctx.ex.flow.handoff.phase() != Phase::Asked
            && head.remove_header(&header::UPGRADE).is_some()
        {
            head.remove_header(&header::CONNECTION);
        }
        let (assigned, host, random) = known(ctx)?;
        let facts = ctx.ex.facts(&host, Some(session.req_header()), random);
        for plugin in &ctx.ex.table.plugins {
            plugin
                .request(&facts, &assigned.facts(), head)
                .map_err(|e| {
                    Error::explain(
                        ErrorType::HTTPStatus(500),
                        format!("{}: {e}", plugin.name()),
                    )
                })?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let status = head.status.as_u16();
        if (100..200).contains(&status) && status != 101 {
            return Ok(());
        }
        if head.status.is_success() {
            // An answer may begin before its request is whole: both go on, and the connections with them.
            // Behind a refusal Pingora closes, so that the client need not send the rest.
            session
                .as_downstream_mut()
                .set_close_on_response_before_downstream_finish(false);
        }
        let (assigned, host, random) = known(ctx)?;
        let facts = ctx.ex.facts(&host, Some(session.req_header()), random);
        for plugin in &ctx.ex.table.plugins {
            plugin
                .response(&facts, &assigned.facts(), head)
                .map_err(|e| {
                    Error::explain(
                        ErrorType::HTTPStatus(500),
                        format!("{}: {e}", plugin.name()),
                    )
                })?;
        }
        if session.req_header().version == http::Version::HTTP_10
            && head.remove_header(&header::TRANSFER_ENCODING).is_some()
        {
            // RFC 9112 §6.1: HTTP/1.0 knows no chunks; the end of the connection is the body's.
            session.set_keepalive(None);
            ctx.ex.flow.ends_by_close();
        }
        assigned.node.met.answered(status);
        let mut record = ctx.ex.record.lock();
        record.status = status;
        let handoff = &ctx.ex.flow.handoff;
        if handoff.phase() == Phase::Asked {
            handoff.set_phase(if status == 101 {
                Phase::Switching
            } else {
                Phase::Ordinary
            });
        }
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
        let idempotent = session.req_header().method.is_idempotent();
        let unanswered = !ctx.ex.flow.has_begun() && session.response_written().is_none();
        let evicted = ctx.ex.flow.is_evicted();
        let upstream = *e.esource() == ErrorSource::Upstream || evicted;
        // What we ended ourselves says nothing of the node.
        if upstream
            && !evicted
            && unanswered
            && !was_reused(ctx)
            && let Some(assigned) = &ctx.ex.record.lock().assigned
        {
            let head = Some(session.req_header());
            assigned.node.broke(ctx.ex.counted_as(head));
        }
        let whole = !session.as_ref().retry_buffer_truncated();
        // Who answers illegally has had the request: another node would get it twice. On a kept
        // connection it may be what the node sent behind its answer before.
        let tell = ctx.ex.flow.is_bad_answer() && !was_reused(ctx);
        let again = idempotent && unanswered && upstream && whole && !tell;
        retry(&mut e, again && may_try_another(ctx), ctx);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let (reason, status) = diagnose(e, ctx);
        ctx.ex.ended(reason);
        if ctx.ex.flow.handoff.phase() == Phase::Switching {
            // What is answered from here on is not what was to leave.
            ctx.ex.flow.handoff.stay();
        }
        let begun = session
            .response_written()
            .is_some_and(|h| !h.status.is_informational());
        if status > 0 && !begun {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let retry = (status == StatusCode::SERVICE_UNAVAILABLE)
                .then(|| retry_after(Duration::ZERO))
                .flatten();
            // It is closed behind the answer, which must say so.
            session.set_keepalive(None);
            let _ = answer(session, ctx, status, retry).await;
        } else {
            ctx.ex.flow.cut_short();
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

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Ctx) {
        let session = session.as_downstream();
        let body = (
            session.body_bytes_read() as u64,
            session.body_bytes_sent() as u64,
        );
        ctx.ex.record.lock().body = body;
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

    /// Pingora's own error lines would repeat the access log, at the pace of whoever misbehaves.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, e: &Error) -> bool {
        log::debug!("{e}");
        true
    }
}

/// Has the request tried again or not, and keeps why it must be.
fn retry(e: &mut Error, again: bool, ctx: &Ctx) {
    e.set_retry(again);
    if again {
        let failed = diagnose(e, ctx);
        ctx.ex.record.lock().tries().failed = Some(failed);
    }
}

/// The host asked for, normalised. Errors: 400 where it is missing, illegal or ambiguous.
fn authority(head: &RequestHeader) -> Result<String> {
    let bad = |what| Error::explain(ErrorType::HTTPStatus(400), what);
    let text = |v: &HeaderValue| {
        v.to_str()
            .map(str::to_owned)
            .map_err(|_| bad("host is not text"))
    };
    let field = head.headers.get(header::HOST).map(text).transpose()?;
    let target = head.uri.authority().map(|a| a.as_str().to_owned());
    if let (Some(f), Some(t)) = (&field, &target)
        && !f.eq_ignore_ascii_case(t)
    {
        return Err(bad("host and authority differ"));
    }
    let raw = target.or(field).unwrap_or_default();
    if !raw.is_empty() && !legal_authority(&raw) {
        return Err(bad("illegal host"));
    }
    Ok(host::normalise(&raw).into_owned())
}
