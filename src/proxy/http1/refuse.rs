//! Sends the last answer of a connection or stream: an error for an illegal head, or the answer of a hook.
//!
//! In: a client's side, a head. Out: the answer, on a socket or a stream. Source: RFC 9110 §15; RFC 9112
//! §9.6.

use std::io;
use std::sync::Arc;

use pushgate_plugins::head::{Edits, Head};
use tokio::time::timeout;

use super::date;
use crate::observe::end_reason::EndReason;
use crate::observe::metrics;
use crate::proxy::conn::Conn;
use crate::proxy::flow::Exchange;
use crate::stream::graceful_close::{LINGER, lingering_close};
use crate::stream::side::Side;
use crate::stream::substream::Reset;

/// Answers a client whose head is illegal or late, and closes.
pub async fn refuse(
    mut side: Side,
    conn: &Arc<Conn>,
    protocol: &'static str,
    (code, phrase): (u16, &str),
    reason: EndReason,
) {
    let body = format!("{code} {phrase}\n");
    let (now, length) = (date::now(), body.len().to_string());
    let fields: [(&str, &[u8]); 5] = [
        ("Date", &now),
        ("Content-Type", b"text/plain; charset=utf-8"),
        ("Content-Length", length.as_bytes()),
        ("Cache-Control", b"no-store"),
        ("Connection", b"close"),
    ];
    let head = Head::make_response(code, phrase, fields);
    let head = Edits::new(Arc::new(head.expect("our own fields are legal")));
    let sent = send_last(&mut side, &head, body.as_bytes()).await;
    let listener = conn.listener.name.as_str();
    let answered = &metrics::get().answered;
    answered
        .with_label_values(&[listener, &code.to_string()])
        .inc();
    let ex = Exchange::new(conn.clone(), protocol);
    ex.record.lock().status = code;
    ex.close(reason, (0, sent));
}

/// Sends the last answer of a connection, or the answer of a stream. Returns its size in bytes.
pub async fn send_last(side: &mut Side, head: &Edits, body: &[u8]) -> u64 {
    if side.is_stream() {
        // A client that has left needs no answer. A client that does not read is given up after `LINGER`.
        let _ = timeout(LINGER, send_stream(side, head, body)).await;
        if let Some(stream) = side.stream() {
            stream.reset(Reset::NoError);
        }
        return body.len() as u64;
    }
    let mut out = Vec::with_capacity(256 + body.len());
    head.write(&mut out);
    out.extend_from_slice(body);
    lingering_close(side, &out).await;
    out.len() as u64
}

/// Sends a complete answer on a stream.
///
/// Errors: the stream is over.
async fn send_stream(side: &mut Side, head: &Edits, body: &[u8]) -> io::Result<()> {
    side.send_head(head, body.is_empty())?;
    let mut sent = 0;
    while sent < body.len() {
        let write = std::future::poll_fn(|cx| side.poll_write_part(cx, &body[sent..], true));
        sent += write.await?;
    }
    if let Some(stream) = side.stream() {
        std::future::poll_fn(|cx| stream.poll_flush(cx)).await?;
    }
    Ok(())
}
