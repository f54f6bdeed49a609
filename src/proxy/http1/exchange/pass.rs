//! Passes a node's answer to its client, and keeps both connections for the next request.
//!
//! In: the relay, a judged head and the bytes behind it. Out: the client for its next request, and the node
//! in the client's idle upstreams; or the end of both.
//! Source: RFC 9112 §6, §9.3; RFC 9110 §7.8 (Upgrade); Diffusion load balancers, "Reuse TCP connection".

use std::future::poll_fn;
use std::task::Poll;

use pingora_proxy::ProxyHttp;
use tokio::io::AsyncWriteExt;

use super::{Answering, Client, Ongoing, Relayed, Step, give_back, scratch};
use crate::observe::end_reason::EndReason;
use crate::proxy::hooks::session::HookSession;
use crate::proxy::http1::response_head::ResponseHead;
use crate::proxy::tunnel::relay_alone;
use crate::stream::direction::DirectionError;
use crate::stream::framing::{Framing, Wrap};
use crate::stream::graceful_close::lingering_close;
use crate::stream::relay::{End, Kind, Relay};
use crate::stream::side::Side;
use crate::stream::substream::Reset;

impl Answering<'_> {
    /// Relays the answer to its end. Returns the client if its connection carries more requests.
    pub async fn run(mut self: Box<Self>) -> Option<Client> {
        let end = self.relay.relay.run(&mut self.ongoing.kill).await;
        if end.reason != EndReason::Done {
            return Box::pin(self.ongoing.cut(end)).await;
        }
        let Relayed {
            relay,
            keep_node,
            keep,
        } = self.relay;
        Box::pin(self.ongoing.finish(relay, keep_node, keep)).await
    }
}

/// Says what the end of each side means while an answer in `framing` is passed on in `wrap`.
fn kind(framing: &Framing, wrap: Wrap, leaves_request: bool) -> Kind {
    let ends_by_node = *framing == Framing::UntilClose;
    Kind::Exchange {
        by_close: wrap == Wrap::Bare || (ends_by_node && wrap == Wrap::AsIs),
        ends_by_node,
        leaves_request,
    }
}

impl Ongoing<'_> {
    /// Passes the answer. `begun`: bytes of its body that were already read.
    pub(super) async fn pass(
        &mut self,
        mut relay: Box<Relay>,
        answer: ResponseHead,
        begun: Vec<u8>,
    ) -> Step<Client> {
        self.ctx.ex.flow.begin();
        // After a refusal the client need not send the rest of its request.
        let refuses = !(200..300).contains(&answer.status) && !relay.request_is_sent();
        let (edits, wrap, keep) = answer.edits(self.terms(!refuses));
        self.ctx.edits = Some(edits);
        let mut hook = self.session()?;
        let HookSession {
            session, response, ..
        } = &mut *hook;
        let filter = self.hooks.response_filter(session, response, &mut self.ctx);
        if let Err(e) = filter.await {
            self.hook = Some(hook);
            let (side, ahead) = relay.into_client();
            let client = Client { side, ahead };
            return Err(Box::pin(self.failed(client, &e)).await);
        }
        self.ctx.ex.record.lock().tries = None;
        let Some(head) = self.ctx.edits.take() else {
            return Err(self.left(EndReason::Internal));
        };
        let switches = answer.status == 101;
        let mut out = scratch(None);
        relay.put_head(&head, answer.framing.is_done() && !switches, &mut out);
        self.hook = Some(hook);
        if switches {
            return Err(self.switch(relay, out, &begun).await);
        }
        let kind = kind(&answer.framing, wrap, refuses);
        let body = (answer.framing, wrap);
        let sent = poll_fn(|cx| {
            let body = body.clone();
            Poll::Ready(relay.answer(cx, kind, body, &mut out, &begun))
        });
        let sent = sent.await;
        give_back(out);
        drop((begun, body, head));
        let reason = match sent {
            Ok(()) if relay.is_over() => {
                return self.finish(relay, answer.keep, keep).await.ok_or(None);
            }
            Ok(()) => None,
            Err(DirectionError::Framing(_)) => Some(EndReason::BadAnswer),
            Err(_) => Some(EndReason::ClientFailed),
        };
        self.give_back_session();
        match reason {
            Some(reason) => {
                let end = relay.broken(reason).await;
                Err(self.cut(end).await)
            }
            None => {
                self.ctx.ex.log_begin();
                self.answering = Some(Relayed {
                    relay,
                    keep_node: answer.keep,
                    keep,
                });
                Err(None)
            }
        }
    }

    /// Ends an exchange whose answer was cut.
    async fn cut(&mut self, end: End) -> Option<Client> {
        self.ctx.ex.record.lock().hidden = Some(end.hidden);
        self.ctx.ex.lost(end.lost);
        self.end(end.reason, (end.to_node, end.to_client)).await;
        None
    }

    /// Ends an exchange whose answer is complete. Keeps the client's connection if `keep` and the whole request
    /// is sent, and then also the node's if `keep_node`.
    async fn finish(
        &mut self,
        mut relay: Box<Relay>,
        keep_node: bool,
        keep: bool,
    ) -> Option<Client> {
        relay.end_answer();
        let bytes = relay.bytes();
        let sent = relay.request_is_sent();
        let (mut side, ahead, node) = relay.into_sides();
        if keep && sent {
            if let Some(node) = node.filter(|_| keep_node) {
                self.keep(node);
            }
            self.end(EndReason::Done, bytes).await;
            return Some(Client { side, ahead });
        }
        // No request will follow, so the node need not wait for a slow client.
        drop(node);
        let reason = match sent {
            true => Box::pin(self.close(side)).await,
            false => {
                match side.stream() {
                    Some(stream) => stream.reset(Reset::NoError),
                    None => Box::pin(lingering_close(&mut side, b"")).await,
                }
                EndReason::Done
            }
        };
        self.end(reason, bytes).await;
        None
    }

    /// Keeps the node's connection for the client's next request.
    fn keep(&self, node: Side) {
        let record = self.ctx.ex.record.lock();
        if let Some(assigned) = &record.assigned {
            let (to, idle) = (&assigned.node, &self.ctx.ex.conn.idle_upstreams);
            idle.keep(&to.idle, node, || to.may_keep());
        }
    }

    /// Closes a client whose answer is in our kernel. Without close_notify a TLS client takes the answer for
    /// cut. The socket accepts close_notify only when it has sent the whole answer, so this waits for a slow
    /// client, as a relay does.
    async fn close(&mut self, mut client: Side) -> EndReason {
        tokio::select! {
            biased;
            // An error means that the client has left.
            _ = client.shutdown() => EndReason::Done,
            reason = &mut self.kill => {
                if let Some(tcp) = client.tcp() {
                    tcp.reset_on_close_if_stalled();
                }
                reason
            }
        }
    }

    /// Sends the 101, and gives both sides to the relay of the WebSocket.
    async fn switch(
        &mut self,
        mut relay: Box<Relay>,
        mut out: Vec<u8>,
        begun: &[u8],
    ) -> Option<Client> {
        let switched = poll_fn(|cx| Poll::Ready(relay.switch(cx, &mut out, begun))).await;
        give_back(out);
        match switched {
            Ok(()) => relay_alone(self.ctx.ex.clone(), *relay),
            Err(_) => self.ctx.ex.close(EndReason::ClientFailed, (0, 0)),
        }
        None
    }
}
