//! Decides what happens to a request whose node was lost before it answered.
//!
//! In: the relay, and why the wait ended. Out: the client, whose request is sent again; or an answer of our
//! own; or the end of the client's connection, as the client would have seen it without an edge.
//! Source: RFC 9110 §9.2.2, RFC 9112 §9.3.1; Lightstreamer clustering §1; FAULTS D59, D63.

use crate::observe::end_reason::EndReason;
use crate::proxy::hooks::assign::{broke, hangs_up, may_repeat};
use crate::stream::relay::Relay;

use super::{Client, Ongoing, Step};

impl Ongoing<'_> {
    /// Handles a wait for an answer that ended with `why`. Returns the client if its request must be sent again.
    pub(super) async fn lost(&mut self, mut relay: Box<Relay>, why: EndReason) -> Step<Client> {
        let evicted = self.ctx.ex.flow.is_evicted();
        // An end that we caused does not count against the node.
        if why == EndReason::NodeFailed && !evicted && !self.ctx.reused {
            broke(&self.ctx);
        }
        let why = if evicted { EndReason::Evicted } else { why };
        let left = relay.is_left();
        if left || matches!(why, EndReason::ClientClosed | EndReason::ClientFailed) {
            relay.abandon();
        }
        let body = relay.copy();
        let (side, ahead) = relay.into_client();
        let mut client = Client { side, ahead };
        match why {
            EndReason::BadAnswer | EndReason::NodeFailed | EndReason::Evicted => {}
            EndReason::BadRequest if !left => return Err(self.fail(client, why, 400).await),
            _ => return Err(self.left(why)),
        }
        let whole = body.is_some() || self.request.framing.is_done();
        if whole && may_repeat(&self.ctx) {
            self.ctx.ex.record.lock().tries().failed = Some((why, 502));
            if let Some(mut body) = body {
                body.append(&mut client.ahead);
                client.ahead = body;
            }
            return Ok(client);
        }
        match hangs_up(&self.ctx, why) {
            true => Err(self.hang_up(client, why).await),
            false => Err(self.fail(client, why, 502).await),
        }
    }

    /// Answers a request whose nodes cannot be connected, or closes if `no_node` says so; `on_lost` decides if the node
    /// accepted and then reset the connection.
    pub(super) async fn unreachable(
        &mut self,
        client: Client,
        reason: EndReason,
        status: u16,
    ) -> Option<Client> {
        match hangs_up(&self.ctx, reason) {
            true => self.hang_up(client, reason).await,
            false => self.fail(client, reason, status).await,
        }
    }
}
