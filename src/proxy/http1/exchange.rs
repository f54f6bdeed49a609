//! Carries one request and its answer, from the head to the last byte.
//!
//! In: the client's side and a judged head. Out: the client's side for its next request, the node's side in
//! the client's [`IdleUpstreams`](crate::upstream::IdleUpstreams), one access line. Both sides are locals of
//! one task, and bytes go from socket to socket through the thread's buffer.
//! Source: RFC 9110 §9.2.2, §15.2; RFC 9112 §6, §9.3; Lightstreamer clustering §1, §2.1; Diffusion load
//! balancers, "Reuse TCP connection".

mod connect;
mod lost;
mod own_answer;
mod pass;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use pingora_proxy::ProxyHttp;
use pushgate_plugins::head::Edits;
use tokio::time::Sleep;

use super::client::Client;
use super::request_head::RequestHead;
use super::response_head::{self, RequestKind, ResponseHead};
use crate::config::defaults;
use crate::config::units::Rate;
use crate::observe::end_reason::EndReason;
use crate::proxy::conn::Conn;
use crate::proxy::flow::{Exchange, Kill};
use crate::proxy::hooks::session::HookSession;
use crate::proxy::hooks::{Ctx, ProxyHooks, assign, peek};
use crate::stream::direction::DirectionError;
use crate::stream::framing::{Framing, Wrap};
use crate::stream::relay::Relay;
use crate::stream::side::Side;
use crate::upstream::flow_limiter::TokenBucket;

/// Most interim answers (1xx) in a burst, and the rate at which more may follow. `102 Processing` as a sign
/// of life goes on for hours; a flood does not (D62).
const INTERIM_BURST: f64 = 100.0;
const INTERIM_RATE: Rate = Rate::a_second(1);

/// The result of a step. An error ends the exchange. It holds the client if the client's connection goes on.
type Step<T> = Result<T, Option<Client>>;

/// The state in which [`exchange`] leaves a request.
pub enum Outcome<'h> {
    /// The exchange is over. Holds the client if its connection carries more requests.
    Over(Option<Client>),
    /// The head of the answer is sent; the rest of the answer follows.
    Answering(Box<Answering<'h>>),
}

/// Carries one request until it is over, or until the rest of its answer is relayed. A stream may take days
/// for that rest, and [`Answering`] keeps no memory of the steps before.
pub async fn exchange<'h>(
    client: Client,
    conn: &Arc<Conn>,
    request: RequestHead,
    hooks: &'h ProxyHooks,
    draining: bool,
) -> Outcome<'h> {
    let ex = Exchange::new(conn.clone(), request.protocol());
    let mut ongoing = Ongoing {
        kill: ex.kill(),
        ctx: Ctx::new(ex, Some(request.head.clone())),
        request,
        hooks,
        hook: None,
        answering: None,
        draining,
    };
    let over = ongoing.carry(client).await;
    match ongoing.answering.take() {
        Some(relay) => Outcome::Answering(Box::new(Answering { ongoing, relay })),
        None => Outcome::Over(over.map_or_else(|over| over, Some)),
    }
}

/// An answer whose rest is being relayed.
pub struct Answering<'h> {
    ongoing: Ongoing<'h>,
    relay: Relayed,
}

/// A relay that passes an answer, and whether each side's connection is kept afterwards.
struct Relayed {
    relay: Box<Relay>,
    keep_node: bool,
    keep: bool,
}

/// The state of one exchange, without its two sides.
struct Ongoing<'h> {
    ctx: Ctx,
    request: RequestHead,
    hooks: &'h ProxyHooks,
    /// The session of the last hook. It is given back before a long wait.
    hook: Option<Box<HookSession>>,
    /// The relay of an answer whose rest follows.
    answering: Option<Relayed>,
    /// Resolves when the flow must be cut.
    kill: Kill,
    /// The process drains, so this request is the connection's last.
    draining: bool,
}

impl Ongoing<'_> {
    /// Carries the exchange from its decision to its end, or until the rest of its answer follows (`answering`).
    async fn carry(&mut self, client: Client) -> Step<Client> {
        let mut client = self.decide(client).await?;
        loop {
            let (asking, node) = self.connect(client).await?;
            let mut relay = self.send(asking, node).await?;
            match self.answer(&mut relay).await {
                Ok((answer, begun)) => return self.pass(relay, answer, begun).await,
                Err(why) => client = Box::pin(self.lost(relay, why)).await?,
            }
        }
    }

    /// Asks the hooks for a node. A hook may answer the request instead.
    async fn decide(&mut self, mut client: Client) -> Step<Client> {
        let mut hook = self.session()?;
        let early = self
            .hooks
            .early_request_filter(&mut hook.session, &mut self.ctx);
        if let Err(e) = early.await {
            hook.give_back();
            return Err(Box::pin(self.failed(client, &e)).await);
        }
        if let Some(bytes) = peek::wanted_bytes(&self.request.head, &self.ctx.ex) {
            let late = tokio::time::sleep(defaults::BODY_PREFIX_TIMEOUT.0);
            let read = Box::pin(read_ahead(&mut client, bytes, late, &mut self.kill));
            read.await.map_err(|why| self.left(why))?;
            let prefix = client.ahead[..bytes.min(client.ahead.len())].to_vec();
            self.ctx.ex.record.lock().tries().body_prefix = prefix;
        }
        let filter = self.hooks.request_filter(&mut hook.session, &mut self.ctx);
        let decided = unless_left(filter, &mut client, &mut self.kill).await;
        let written = hook.written();
        self.hook = Some(hook);
        match decided {
            Ok(Ok(false)) => Ok(client),
            Ok(Ok(true)) => Err(Box::pin(self.say(client, written)).await),
            Ok(Err(e)) => Err(Box::pin(self.failed(client, &e)).await),
            Err(why) => Err(self.left(why)),
        }
    }

    /// Sends the request's head, with the part of its body that has arrived, in one write.
    async fn send(&mut self, client: Client, node: Side) -> Step<Box<Relay>> {
        let mut hook = self.session()?;
        self.ctx.edits = Some(self.request.edits());
        let HookSession {
            session, request, ..
        } = &mut *hook;
        let filter = self
            .hooks
            .upstream_request_filter(session, request, &mut self.ctx);
        let filtered = filter.await;
        self.hook = Some(hook);
        if let Err(e) = filtered {
            return Err(Box::pin(self.failed(client, &e)).await);
        }
        let body = self.body();
        let copy = !body.0.is_done() && assign::is_repeatable(&self.ctx);
        let rules = self.ctx.ex.conn.listener.rules();
        // Boxed: otherwise each step would hold the relay by value.
        let mut relay = Box::new(Relay::request(client.side, node, rules, body, copy));
        self.ctx.ex.follow(&mut relay);
        let mut out = scratch(self.ctx.edits.take());
        let mut ahead = Some(client.ahead);
        let sent =
            poll_fn(|cx| Poll::Ready(relay.send(cx, &mut out, ahead.take().unwrap_or_default())));
        // Errors are ignored: a broken node shows in the wait for its answer, which may be on its way.
        let sent = sent.await;
        give_back(out);
        match sent {
            Err(DirectionError::Framing(_)) => {
                let (side, ahead) = relay.into_client();
                let client = Client { side, ahead };
                Err(Box::pin(self.fail(client, EndReason::BadRequest, 400)).await)
            }
            _ => Ok(relay),
        }
    }

    /// Returns the framing of the request's body, and how its bytes reach the node. A stream ends a body
    /// without framing inside it.
    fn body(&self) -> (Framing, Wrap) {
        match &self.request.framing {
            Framing::Chunked(_) if self.request.over_http2 => (Framing::UntilClose, Wrap::Chunks),
            framing => (framing.clone(), Wrap::AsIs),
        }
    }

    /// Waits for the answer's head while the request's body is sent. Returns the head with the bytes read
    /// behind it.
    ///
    /// Errors: why no answer arrived.
    async fn answer(&mut self, relay: &mut Relay) -> Result<(ResponseHead, Vec<u8>), EndReason> {
        // A node may hold a poll for hours. The wait keeps no session.
        self.give_back_session();
        let flow = self.ctx.ex.flow.clone();
        let mut evicted = flow.give_up.wait();
        let (mut got, mut looked) = (Vec::new(), 0);
        let mut interim: Option<Box<TokenBucket>> = None;
        loop {
            let kill = &mut self.kill;
            poll_fn(|cx| {
                if let Poll::Ready(reason) = Pin::new(&mut *kill).poll(cx) {
                    return Poll::Ready(Err(reason));
                }
                if Pin::new(&mut evicted).poll(cx).is_ready() {
                    return Poll::Ready(Err(EndReason::Evicted));
                }
                relay.poll_answer(cx, &mut got)
            })
            .await?;
            while let Some(end) = response_head::end(&got, looked).map_err(|_| self.illegal())? {
                let behind = got.split_off(end);
                let head = std::mem::replace(&mut got, behind);
                let request = RequestKind {
                    head: self.request.head.method() == "HEAD",
                    websocket: self.request.websocket,
                };
                let head = response_head::judge(&head, request).map_err(|_| self.illegal())?;
                if !(100..200).contains(&head.status) || head.status == 101 {
                    return match self.is_accepted(&head) {
                        true => Ok((head, got)),
                        false => Err(self.illegal()),
                    };
                }
                self.pass_interim(relay, &head, &mut interim).await?;
                looked = 0;
            }
            looked = got.len().saturating_sub(3);
        }
    }

    /// Passes an interim answer to the client, unless the client speaks HTTP/1.0 (RFC 9110 §15.2).
    ///
    /// Errors: the node sends too many, or the client failed.
    async fn pass_interim(
        &self,
        relay: &mut Relay,
        head: &ResponseHead,
        left: &mut Option<Box<TokenBucket>>,
    ) -> Result<(), EndReason> {
        let now = Instant::now();
        let full = || Box::new(TokenBucket::with_burst(INTERIM_RATE, INTERIM_BURST, now));
        if !left.get_or_insert_with(full).take(now) {
            return Err(self.illegal());
        }
        if self.request.head.is_http_10() {
            return Ok(());
        }
        let edits = head.edits(self.terms(true)).0;
        let mut out = scratch(None);
        relay.put_head(&edits, false, &mut out);
        let passed = poll_fn(|cx| Poll::Ready(relay.interim(cx, &out))).await;
        give_back(out);
        passed.map_err(|_| EndReason::ClientFailed)
    }

    /// Whether the answer is valid for an upgrade that the edge made of a stream: a 101 with the right key,
    /// or a status outside 2xx. A stream would take any 2xx for an accepted WebSocket.
    fn is_accepted(&self, answer: &ResponseHead) -> bool {
        let Some(accept) = &self.request.accept else {
            return true;
        };
        match answer.status {
            101 => answer.head.value("sec-websocket-accept") == Some(&accept[..]),
            status => !(200..300).contains(&status),
        }
    }

    /// Records that the node's answer is not legal HTTP.
    fn illegal(&self) -> EndReason {
        self.ctx.ex.flow.answered_badly();
        EndReason::BadAnswer
    }

    fn terms(&self, keep: bool) -> response_head::ClientTerms {
        response_head::ClientTerms {
            http_10: self.request.head.is_http_10(),
            http_2: self.request.over_http2,
            keep: keep && self.request.keep && !self.draining,
        }
    }

    /// Takes the session for the next hook.
    fn session(&mut self) -> Step<Box<HookSession>> {
        match self.hook.take() {
            Some(hook) => Ok(hook),
            None => HookSession::take(&self.request.head).map_err(|_| None),
        }
    }

    /// Gives back the last hook's session, before a wait that may be long.
    fn give_back_session(&mut self) {
        if let Some(hook) = self.hook.take() {
            hook.give_back();
        }
    }

    /// Ends an exchange whose client has left or whose flow was cut.
    fn left(&self, why: EndReason) -> Option<Client> {
        self.ctx.ex.close(why, (0, 0));
        None
    }

    /// Ends the exchange by the hook `logging`.
    async fn end(&mut self, reason: EndReason, bytes: (u64, u64)) {
        self.ctx.end = Some((reason, bytes));
        if let Ok(mut hook) = self.session() {
            self.hooks
                .logging(&mut hook.session, None, &mut self.ctx)
                .await;
            hook.give_back();
        }
    }
}

/// Reads until `bytes` of the request's body have arrived, or `late` has passed.
///
/// Errors: the client left, or the flow was cut.
async fn read_ahead(
    client: &mut Client,
    bytes: usize,
    late: Sleep,
    kill: &mut Kill,
) -> Result<(), EndReason> {
    let mut late = pin!(late);
    poll_fn(|cx| {
        let left = client.poll_body(cx, bytes);
        if client.ahead.len() >= bytes || late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut *kill).poll(cx) {
            Poll::Ready(reason) => Poll::Ready(Err(reason)),
            Poll::Pending => left.map(Err),
        }
    })
    .await
}

thread_local! {
    /// One buffer for each thread, for heads that are about to be sent.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Largest buffer that a thread keeps for heads, in bytes.
const MAX_OUT: usize = 64 * 1024;

/// Takes the thread's buffer and writes a head into it. The caller gives the buffer back before it awaits.
fn scratch(edits: Option<Edits>) -> Vec<u8> {
    let mut out = OUT.take();
    out.clear();
    if let Some(edits) = edits {
        edits.write(&mut out);
    }
    out
}

fn give_back(out: Vec<u8>) {
    if out.capacity() <= MAX_OUT {
        OUT.set(out);
    }
}

/// Waits for `what`, unless the client leaves or the flow is cut.
///
/// Errors: the reason.
async fn unless_left<T>(
    what: impl Future<Output = T>,
    client: &mut Client,
    kill: &mut Kill,
) -> Result<T, EndReason> {
    let mut what = pin!(what);
    poll_fn(|cx| {
        if let Poll::Ready(done) = what.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if let Poll::Ready(reason) = Pin::new(&mut *kill).poll(cx) {
            return Poll::Ready(Err(reason));
        }
        // No answer has begun, so the client cuts nothing by leaving.
        client.watch(cx).map(|_| Err(EndReason::ClientClosed))
    })
    .await
}

#[cfg(test)]
mod tests;
