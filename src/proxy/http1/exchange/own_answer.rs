//! Answers a request ourselves, or ends its connection without an answer.
//!
//! In: a status, or the answer a hook wrote. Out: the client, if its connection can carry the next request.
//! Source: RFC 9110 §15; RFC 9112 §9.3, §9.6.

use http::StatusCode;
use pingora::Error;
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt;

use super::{Client, Ongoing};
use crate::observe::end_reason::EndReason;
use crate::proxy::hooks::answer::{answer, diagnose, retry_after};
use crate::proxy::http1::date;
use crate::stream::parting::{lingering_close, once};

impl Ongoing<'_> {
    /// Ends an exchange in which a hook failed.
    pub(super) async fn failed(&mut self, client: Client, e: &Error) -> Option<Client> {
        let (reason, status) = diagnose(e, &self.ctx);
        match (reason, status) {
            (_, 0) => self.left(reason),
            (EndReason::NodeUnreachable | EndReason::Exhausted | EndReason::NodeFailed, _) => {
                self.unreachable(client, reason, status).await
            }
            _ => self.fail(client, reason, status).await,
        }
    }

    /// Answers with `status` because of `reason`, and closes.
    pub(super) async fn fail(
        &mut self,
        client: Client,
        reason: EndReason,
        status: u16,
    ) -> Option<Client> {
        self.ctx.ex.ended(reason);
        self.ctx.close = true;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        let later = (status == StatusCode::SERVICE_UNAVAILABLE)
            .then(|| retry_after(std::time::Duration::ZERO))
            .flatten();
        let Ok(mut hook) = self.session() else {
            return self.left(reason);
        };
        let _ = answer(&mut hook.session, &self.ctx, status, later).await;
        let written = hook.written();
        self.hook = Some(hook);
        self.say(client, written).await
    }

    /// Sends the answer a hook wrote; without one the connection ends.
    pub(super) async fn say(
        &mut self,
        mut client: Client,
        written: Option<(ResponseHeader, Vec<u8>)>,
    ) -> Option<Client> {
        let Some((head, body)) = written else {
            return self.hang_up(client, EndReason::NoNode).await;
        };
        let wanted = self.request.keep && !self.draining && !self.ctx.close;
        let keep = wanted && self.skip_body(&mut client);
        let bytes = self.bytes(&head, &body, keep);
        let down = bytes.len() as u64;
        if !keep {
            lingering_close(&mut client.side, &bytes).await;
            self.end(EndReason::Done, (0, down)).await;
            return None;
        }
        let side = &mut client.side;
        let write = tokio::select! {
            biased;
            reason = &mut self.kill => Err(reason),
            written = side.write_all(&bytes) => written.map_err(|_| EndReason::ClientFailed),
        };
        let reason = write.err().unwrap_or(EndReason::Done);
        self.end(reason, (0, down)).await;
        (reason == EndReason::Done).then_some(client)
    }

    /// Ends the client's connection without an answer, by an orderly close, as a node would without an edge.
    pub(super) async fn hang_up(&mut self, mut client: Client, why: EndReason) -> Option<Client> {
        // Once: a client that does not read must not hold this task.
        let _ = once(client.side.shutdown()).await;
        self.end(why, (0, 0)).await;
        None
    }

    /// Takes the request's body from the bytes read ahead; false: it is not whole there.
    fn skip_body(&self, client: &mut Client) -> bool {
        let mut framing = self.request.framing.clone();
        match framing.advance(&client.ahead) {
            Ok(used) if framing.is_done() => {
                client.ahead.drain(..used);
                true
            }
            _ => false,
        }
    }

    fn bytes(&self, head: &ResponseHeader, body: &[u8], keep: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + body.len());
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(head.status.as_str().as_bytes());
        out.push(b' ');
        let phrase = head.status.canonical_reason().unwrap_or("Error");
        out.extend_from_slice(phrase.as_bytes());
        out.extend_from_slice(b"\r\nDate: ");
        out.extend_from_slice(&date::now());
        out.extend_from_slice(b"\r\n");
        head.header_to_h1_wire(&mut out);
        match (keep, self.request.head.is_http_10()) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, false) => {}
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        out
    }
}
