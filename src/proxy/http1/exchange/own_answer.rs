//! Sends an answer of our own, or ends the client's connection without an answer.
//!
//! In: a status, or the answer a hook wrote. Out: the client, if its connection can carry the next request.
//! Source: RFC 9110 §15; RFC 9112 §9.3, §9.6.

use std::sync::Arc;

use http::StatusCode;
use pingora::Error;
use pingora_http::ResponseHeader;
use pushgate_plugins::head::{Edits, Head};
use tokio::io::AsyncWriteExt;

use super::{Client, Ongoing};
use crate::observe::end_reason::EndReason;
use crate::proxy::hooks::answer::{answer, diagnose, retry_after};
use crate::proxy::http1::date;
use crate::proxy::http1::refuse::send_last;
use crate::stream::graceful_close::poll_once;
use crate::stream::substream::Reset;

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
        let later = matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        let later = later
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

    /// Sends the answer that a hook wrote. Without one, ends the connection without an answer.
    pub(super) async fn say(
        &mut self,
        mut client: Client,
        written: Option<(ResponseHeader, Vec<u8>)>,
    ) -> Option<Client> {
        let Some((head, body)) = written else {
            return self.hang_up(client, EndReason::NoNode).await;
        };
        let wanted = self.request.keep && !self.draining && !self.ctx.close;
        let keep = wanted && !client.side.is_stream() && self.skip_body(&mut client);
        let Some(head) = self.head(&head, keep) else {
            return self.hang_up(client, EndReason::Internal).await;
        };
        if !keep {
            let cut = send_last(&mut client.side, &head, &body);
            let sent = tokio::select! {
                biased;
                reason = &mut self.kill => Err(reason),
                sent = cut => Ok(sent),
            };
            let (reason, down) = sent.map_or_else(|why| (why, 0), |n| (EndReason::Done, n));
            self.end(reason, (0, down)).await;
            return None;
        }
        let mut bytes = Vec::with_capacity(256 + body.len());
        head.write(&mut bytes);
        bytes.extend_from_slice(&body);
        let down = bytes.len() as u64;
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

    /// Ends the client's connection without an answer: gracefully, as a node would without an edge. Of an HTTP/2
    /// connection only the stream is reset.
    pub(super) async fn hang_up(&mut self, mut client: Client, why: EndReason) -> Option<Client> {
        if let Some(stream) = client.side.stream() {
            stream.reset(match why {
                EndReason::NodeFailed | EndReason::Evicted => Reset::Cut,
                // No node has had the request.
                _ => Reset::Refused,
            });
        }
        // Polled once, because a client that does not read must not hold this task.
        let _ = poll_once(client.side.shutdown()).await;
        self.end(why, (0, 0)).await;
        None
    }

    /// Skips the request's body in the bytes read ahead. False: the body is not complete there.
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

    /// Makes the head of an answer that a hook wrote.
    fn head(&self, head: &ResponseHeader, keep: bool) -> Option<Edits> {
        let phrase = head.status.canonical_reason().unwrap_or("Error");
        let now = date::now();
        let connection = match (keep, self.request.head.is_http_10()) {
            (false, _) => Some(&b"close"[..]),
            (true, true) => Some(&b"keep-alive"[..]),
            (true, false) => None,
        };
        let fields = head.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes()));
        let fields = [("Date", &now[..])]
            .into_iter()
            .chain(fields)
            .chain(connection.map(|value| ("Connection", value)));
        let head = Head::make_response(head.status.as_u16(), phrase, fields);
        Some(Edits::new(Arc::new(head.ok()?)))
    }
}
