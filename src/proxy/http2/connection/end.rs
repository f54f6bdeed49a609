//! Ends a connection: sends its client the reason, and counts it.
//!
//! Source: RFC 9113 §5.4.1, §6.8, §7.

use h2::Reason;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{Connection, LAST};
use crate::observe::end_reason::EndReason;
use crate::observe::metrics;
use crate::proxy::conn::Conn;
use crate::proxy::http2::limits::Exceeded;
use crate::stream::graceful_close::lingering_close;

/// Why a connection ends.
pub(super) enum End {
    /// The client closed the connection.
    Closed,
    /// The connection broke.
    Broken,
    /// The last stream ended during a drain, or after the client sent GOAWAY.
    Drained,
    /// The client sent no request, or not the rest of a frame, in time.
    Late,
    /// The client broke the protocol.
    Error(Reason),
    /// The client exceeded a limit.
    Exceeded(Exceeded),
}

impl Connection {
    /// Ends the connection, and sends the client GOAWAY with the reason if one is due.
    pub(super) async fn end(self, end: End) {
        use EndReason::{BadRequest, ClientClosed, ClientFailed, HeadTimeout};
        // The reason in GOAWAY, the end reason of open streams, the label value in the metric.
        let (reason, streams, counted) = match end {
            End::Closed => (None, ClientClosed, None),
            End::Broken => (None, ClientFailed, None),
            End::Drained => (Some(Reason::NO_ERROR), ClientClosed, None),
            End::Late => (Some(Reason::NO_ERROR), HeadTimeout, Some("head_timeout")),
            End::Error(reason) => (Some(reason), BadRequest, Some(word(reason))),
            End::Exceeded(limit) => {
                let calm = Some(Reason::ENHANCE_YOUR_CALM);
                (calm, BadRequest, Some(limit.as_str()))
            }
        };
        if let Some(word) = counted {
            count(&self.conn, word);
        }
        let (side, waiting) = {
            let mut mux = self.mux.lock();
            if let Some(reason) = reason {
                let last = mux.last();
                mux.go_away(last, reason);
                mux.flush();
            }
            (mux.end(streams), mux.output().split())
        };
        let (Some(mut side), Some(_)) = (side, reason) else {
            return;
        };
        let said = timeout(LAST, side.write_all(&waiting)).await;
        match said {
            Ok(Ok(())) => lingering_close(&mut side, b"").await,
            // The client does not read, so its last frames would stay in the kernel.
            _ => side.reset_on_close(),
        }
    }
}

/// Counts and logs a connection that ended because of its client.
pub(super) fn count(conn: &Conn, reason: &str) {
    let (listener, client) = (conn.listener.name.as_str(), conn.client);
    log::debug!("listener {listener}: closed the HTTP/2 connection of {client}: {reason}");
    metrics::get()
        .http2_ended
        .with_label_values(&[listener, reason])
        .inc();
}

/// Returns the label value of a reason in the metric.
fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::FLOW_CONTROL_ERROR => "flow_control",
        Reason::COMPRESSION_ERROR => "compression",
        Reason::FRAME_SIZE_ERROR => "frame_size",
        Reason::STREAM_CLOSED => "stream_closed",
        Reason::ENHANCE_YOUR_CALM => "continuation",
        _ => "protocol",
    }
}
