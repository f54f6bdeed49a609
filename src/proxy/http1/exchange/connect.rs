//! Connects an exchange to its node, by an idle upstream of this client or by a new connection.
//!
//! In: the client's side. Out: both sides. If a node cannot be reached, another one is tried, up to `retries`
//! times.
//! Source: Diffusion load balancers, "Reuse TCP connection"; FAULTS D59, D63.

use std::io;

use super::{Client, Ongoing, Step, unless_left};
use crate::observe::end_reason::EndReason;
use crate::proxy::assign::{dialer, tap};
use crate::proxy::hooks::assign::{may_try_another, next_node};
use crate::route::Assigned;
use crate::stream::side::Side;
use crate::upstream::connect::ConnectError;

impl Ongoing<'_> {
    /// Returns the node's side, with a tap if plugins watch the answer.
    pub(super) async fn connect(&mut self, client: Client) -> Step<(Client, Side)> {
        let (client, assigned, side) = match self.idle() {
            Some((assigned, side)) => (client, assigned, side),
            None => Box::pin(self.dial(client)).await?,
        };
        let tap = tap(&self.ctx.ex, Some(&self.request.head), &assigned);
        Ok(match tap {
            Some(tap) => (client, side.tapped(tap)),
            None => (client, side),
        })
    }

    /// Takes this client's idle upstream to the chosen node, if there is one.
    fn idle(&mut self) -> Option<(Assigned, Side)> {
        let assigned = self.ctx.decided.as_ref()?;
        let side = self.ctx.ex.conn.idle_upstreams.take(&assigned.node.idle)?;
        self.ctx.reused = true;
        Some((self.ctx.decided.take()?, side))
    }

    async fn dial(&mut self, mut client: Client) -> Step<(Client, Assigned, Side)> {
        loop {
            let assigned = match self.next(&mut client).await {
                Ok(Ok(assigned)) => assigned,
                Ok(Err(e)) => return Err(Box::pin(self.failed(client, &e)).await),
                Err(why) => return Err(self.left(why)),
            };
            if let Some(side) = self.ctx.ex.conn.idle_upstreams.take(&assigned.node.idle) {
                self.ctx.reused = true;
                return Ok((client, assigned, side));
            }
            self.ctx.reused = false;
            self.ctx.ex.conn.known_to(&assigned.node);
            self.charge();
            let dialer = dialer(&self.ctx.ex, Some(&self.request.head), &assigned);
            let dialed = Box::pin(unless_left(dialer.dial(), &mut client, &mut self.kill));
            let failure = match dialed.await {
                Ok(Ok(side)) => return Ok((client, assigned, side)),
                Ok(Err(failure)) => failure,
                Err(why) => return Err(self.left(why)),
            };
            let (reason, status) = self.diagnose(&failure);
            self.ctx.ex.record.lock().tries().failed = Some((reason, status));
            // Without descriptors or memory the edge reaches no other node either.
            let elsewhere = match &failure {
                ConnectError::Short(shortage) => shortage.spares_others(),
                ConnectError::ClientShare => false,
                _ => true,
            };
            if !elsewhere || !may_try_another(&self.ctx) {
                return Err(Box::pin(self.unreachable(client, reason, status)).await);
            }
        }
    }

    /// Charges the first dial to the client. That another node must be tried is not its fault.
    fn charge(&self) {
        let ex = &self.ctx.ex;
        if ex.record.lock().retries == 0 {
            ex.conn
                .listener
                .charge_dial(ex.client(Some(&self.request.head)));
        }
    }

    /// Returns the chosen node, or the next one to try.
    async fn next(&mut self, client: &mut Client) -> Result<pingora::Result<Assigned>, EndReason> {
        if let Some(assigned) = self.ctx.decided.take() {
            return Ok(Ok(assigned));
        }
        let next = next_node(&mut self.ctx);
        unless_left(next, client, &mut self.kill).await
    }

    fn diagnose(&self, failure: &ConnectError) -> (EndReason, u16) {
        match failure {
            _ if self.ctx.ex.flow.is_evicted() => (EndReason::Evicted, 502),
            ConnectError::Timeout => (EndReason::NodeUnreachable, 504),
            ConnectError::Short(_) => (EndReason::Exhausted, 503),
            ConnectError::ClientShare => (EndReason::ClientLimit, 429),
            // The node accepted and then reset. The reset may show here, or at the first read.
            ConnectError::Io(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                (EndReason::NodeFailed, 502)
            }
            ConnectError::Io(_) | ConnectError::Evicted => (EndReason::NodeUnreachable, 502),
        }
    }
}
