//! Relays one request and its answer until the answer's head has passed.
//!
//! In: both heads as they will be sent, and the bytes read after them. Out: each head in one write with those
//! bytes. The request's body goes up while the relay waits for the answer.
//! Source: RFC 9112 §6, §9.3.2; RFC 9110 §15.2 (interim answers), §10.1.1 (Expect).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use pushgate_plugins::head::Edits;
use tokio::io::AsyncWrite;

use super::{End, Kind, READ_UP, Relay, Rules};
use crate::observe::end_reason::EndReason;
use crate::stream::direction::{Direction, DirectionError, write_now};
use crate::stream::framing::{Framing, Wrap};
use crate::stream::side::{MORE, Side};

impl Relay {
    /// Creates the relay of a request to `node`. `framing`, `wrap`: of its body. `copy`: keep the body for a
    /// retry.
    pub fn request(
        client: Side,
        node: Side,
        rules: Rules,
        (framing, wrap): (Framing, Wrap),
        copy: bool,
    ) -> Self {
        let kind = Kind::Exchange {
            by_close: false,
            ends_by_node: false,
            leaves_request: false,
        };
        let mut this = Relay::of(client, node, rules, kind);
        this.up.set_message(framing, wrap);
        if copy {
            this.up.keep_copy();
        }
        this
    }

    /// Sends the request's head in `out`, together with the part of `ahead` that belongs to its body, in one
    /// write.
    ///
    /// Errors: the body is illegally framed, or the node's connection is broken.
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        ahead: Vec<u8>,
    ) -> Result<(), DirectionError> {
        self.head_bytes = u32::try_from(out.len()).unwrap_or(u32::MAX);
        if self.up.is_over() {
            self.ahead.keep(ahead);
        } else {
            self.up.begin(&ahead, out)?;
            self.ahead.keep(self.up.take_surplus());
        }
        let n = write_now(cx, &mut self.node, out, false)?;
        self.up.wrote(n, out);
        self.request_over = self.up.is_over();
        Ok(())
    }

    /// Sends the answer's head in `out`, together with `begun`, the first bytes of its body, in one write.
    /// `framing`, `wrap`: of the body.
    ///
    /// Errors: the body is illegally framed, or the client's connection is broken.
    pub fn answer(
        &mut self,
        cx: &mut Context<'_>,
        kind: Kind,
        (framing, wrap): (Framing, Wrap),
        out: &mut Vec<u8>,
        begun: &[u8],
    ) -> Result<(), DirectionError> {
        self.kind = kind;
        self.down.set_message(framing, wrap);
        // A body that is illegal from its first byte is cut after its head, like any other.
        let begun = self.down.begin(begun, out);
        self.write_down(cx, out)?;
        begun
    }

    /// Puts a head in front of the next write: into `out`, or onto the client's stream. `is_all`: the head
    /// has no body.
    pub fn put_head(&mut self, head: &Edits, is_all: bool, out: &mut Vec<u8>) {
        // If the stream is over, the next write reports it.
        if let Ok(false) = self.client.send_head(head, is_all) {
            head.write(out);
        }
    }

    /// Writes as much of `out` as the client takes now; the rest waits.
    fn write_down(&mut self, cx: &mut Context<'_>, out: &[u8]) -> Result<(), DirectionError> {
        let last = self.down.ends_sink();
        let n = write_now(cx, &mut self.client, out, last)?;
        self.down.wrote(n, out);
        // The head of a stream waits for the first write.
        if out.is_empty() {
            let _ = Pin::new(&mut self.client).poll_flush(cx);
        }
        Ok(())
    }

    /// Ends the answer on a stream, with the node's trailers, unless its last byte did.
    pub fn end_answer(&mut self) {
        let trailers = self.down.take_trailers();
        self.client.end(&trailers);
    }

    /// Whether the client's side is a stream.
    pub fn is_of_stream(&self) -> bool {
        self.client.is_stream()
    }

    /// Resets the node's connection when it closes: an orderly close would keep the local port for a minute.
    pub fn abandon(&mut self) {
        self.node.reset_on_close();
    }

    /// Turns the exchange into a WebSocket. `out` is the 101's head, `begun` the node's first bytes after it.
    ///
    /// Errors: the client's connection is broken.
    pub fn switch(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        begun: &[u8],
    ) -> Result<(), DirectionError> {
        self.kind = Kind::WebSocket;
        self.up = Direction::new(false, READ_UP, false);
        self.head_bytes = 0;
        self.up.wrote(0, &self.ahead.take());
        self.down.follow_frames(begun);
        out.extend_from_slice(begun);
        self.write_down(cx, out)
    }

    /// Sends an interim answer (1xx). Later bytes wait until the client has taken it.
    ///
    /// Errors: the client's connection is broken.
    pub fn interim(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), DirectionError> {
        match self.down.held() {
            0 => self.write_down(cx, bytes),
            _ => {
                self.down.wrote(0, bytes);
                Ok(())
            }
        }
    }

    /// Reads more of the answer's head into `got`, while the request's body goes up.
    ///
    /// Errors: the reason why the exchange is over.
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        got: &mut Vec<u8>,
    ) -> Poll<Result<(), EndReason>> {
        // Back-pressure: the node is not read while its client takes no interim answer.
        let passed = self.down.pass_pending(cx, &mut self.client);
        let is_read = passed.is_ready();
        match passed {
            Poll::Ready(Ok(())) => {
                if let Poll::Ready(read) = self.node.poll_more(cx, got, MORE) {
                    return Poll::Ready(match read {
                        Ok(n) if n > 0 => Ok(()),
                        _ => Err(EndReason::NodeFailed),
                    });
                }
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Err(EndReason::ClientFailed)),
            Poll::Pending => {}
        }
        if let Poll::Ready(reason) = self.poll_node_end(cx, is_read) {
            return Poll::Ready(Err(reason));
        }
        let up = self.poll_up(cx);
        if up.is_pending() {
            self.note_asked(is_read);
        }
        up.map(Err)
    }

    /// Whether the client's stream is over: reset, or its connection ended.
    pub fn is_left(&self) -> bool {
        self.client.gone().is_some()
    }

    /// Takes the copy of the request's body, if one was kept.
    pub fn copy(&mut self) -> Option<Vec<u8>> {
        self.up.copy()
    }

    /// Returns the client's side and the bytes it sent ahead. Closes the node's side.
    pub fn into_client(mut self) -> (Side, Vec<u8>) {
        (self.client, self.ahead.take())
    }

    /// Whether the answer is whole, and the request too, or it may be left.
    pub fn is_over(&self) -> bool {
        let leaves = matches!(
            self.kind,
            Kind::Exchange {
                leaves_request: true,
                ..
            }
        );
        self.down.is_over() && (self.request_over || leaves)
    }

    /// Returns how many bytes of the request's body the node took, and how many of the answer with its head
    /// the client took.
    pub fn bytes(&self) -> (u64, u64) {
        (self.body_sent(), self.down.passed())
    }

    /// Ends the relay for `reason`.
    pub async fn broken(&mut self, reason: EndReason) -> End {
        poll_fn(|cx| Poll::Ready(self.end(cx, reason, false))).await
    }

    /// Returns the sockets after a whole answer: the client's with the bytes it sent ahead, and the node's.
    /// Drops the node's if it sent more than its answer or has not the whole request.
    pub fn into_sides(mut self) -> (Side, Vec<u8>, Option<Side>) {
        let clean = self.down.take_surplus().is_empty() && self.request_is_sent();
        (self.client, self.ahead.take(), clean.then_some(self.node))
    }

    /// Whether the node has the whole request.
    pub fn request_is_sent(&self) -> bool {
        self.request_over && !self.request_cut
    }

    /// Returns how many bytes of the request's body the node took.
    pub fn body_sent(&self) -> u64 {
        match self.client.received() {
            // The chunks around these bytes are the edge's own.
            Some(n) => n.saturating_sub(self.up.held() as u64),
            None => self.up.passed().saturating_sub(self.head_bytes.into()),
        }
    }

    /// Sends the request's body, then keeps the bytes after it. Ready, with the reason, when the client has
    /// ended.
    pub(super) fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        if !self.request_over {
            let up = self.up.pump(cx, &mut self.client, &mut self.node);
            let is_read = up.is_ready() || self.up.waits_for_source();
            let left = self.poll_client_end(cx, is_read);
            let Poll::Ready(up) = up else {
                return left;
            };
            match up {
                Ok(()) => self.ahead.keep(self.up.take_surplus()),
                // The node takes no more; its answer may be on its way.
                Err(DirectionError::Sink) => self.request_cut = true,
                Err(DirectionError::Ended) => return Poll::Ready(EndReason::ClientClosed),
                Err(DirectionError::Source) => {
                    let why = self.client.gone();
                    return Poll::Ready(why.unwrap_or(EndReason::ClientFailed));
                }
                Err(DirectionError::Framing(_)) => return Poll::Ready(EndReason::BadRequest),
            }
            self.request_over = true;
        }
        self.ahead.watch(cx, &mut self.client)
    }
}

#[cfg(test)]
mod tests;
