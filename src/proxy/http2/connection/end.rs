//! Ends a connection: sends its client the reason, and counts it.
//!
//! Source: RFC 9113 §5.4.1, §6.8, §7.

use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::observe::end_reason::EndReason;
use crate::observe::metrics;
use crate::proxy::conn::Conn;
use crate::proxy::http2::limits::Exceeded;
use crate::proxy::http2::mux::Shared;
use crate::stream::graceful_close::lingering_close;
use crate::stream::turns::wake_in_turns;

/// Time for a client to take the last frames of its connection.
const LAST: Duration = Duration::from_secs(1);

/// Why a connection ends.
pub(super) enum End {
    /// The client closed the connection.
    Closed,
    /// The connection broke.
    Broken,
    /// The last stream ended during a drain, or after the client sent GOAWAY.
    Drained,
    /// The connection is idle, and others need its room.
    Closes,
    /// The client sent no request, or not the rest of a frame, in time.
    Late,
    /// The client broke the protocol.
    Error(Reason),
    /// The client exceeded a limit.
    Exceeded(Exceeded),
}

/// Ends the connection, and sends the client GOAWAY with the reason if one is due.
pub(super) async fn close(mux: Shared, conn: Arc<Conn>, end: End) {
    use EndReason::{BadRequest, ClientClosed, ClientFailed, HeadTimeout};
    let at_once = matches!(end, End::Closes);
    // The reason in GOAWAY, the end reason of open streams, the label value in the metric.
    let (reason, streams, counted) = match end {
        End::Closed => (None, ClientClosed, None),
        End::Broken => (None, ClientFailed, None),
        End::Drained | End::Closes => (Some(Reason::NO_ERROR), ClientClosed, None),
        End::Late => (
            Some(Reason::NO_ERROR),
            HeadTimeout,
            Some(Ended::HeadTimeout),
        ),
        End::Error(reason) => (Some(reason), BadRequest, Some(Ended::of(reason))),
        End::Exceeded(limit) => {
            let calm = Some(Reason::ENHANCE_YOUR_CALM);
            (calm, BadRequest, Some(Ended::Limit(limit)))
        }
    };
    if let Some(ended) = counted {
        count(&conn, ended);
    }
    let (side, lost, waiting) = {
        let mut mux = mux.lock();
        if let Some(reason) = reason {
            let last = mux.last();
            mux.go_away(last, reason);
            mux.flush();
        }
        let (side, lost) = mux.end(streams);
        (side, lost, mux.output().split())
    };
    wake_in_turns(lost).await;
    let (Some(mut side), Some(_)) = (side, reason) else {
        return;
    };
    if at_once && waiting.is_empty() {
        // A new client waits for the descriptor. An answer's last bytes still get their second.
        return;
    }
    let said = timeout(LAST, side.write_all(&waiting)).await;
    match said {
        Ok(Ok(())) => lingering_close(&mut side, b"").await,
        // The client does not read, so its last frames would stay in the kernel.
        _ => side.reset_on_close(),
    }
}

/// Counts and logs a connection that ended because of its client.
pub(super) fn count(conn: &Conn, ended: Ended) {
    let reason = ended.as_str();
    let (listener, client) = (conn.listener.name.as_str(), conn.client);
    log::debug!("listener {listener}: closed the HTTP/2 connection of {client}: {reason}");
    metrics::get()
        .http2_ended
        .with_label_values(&[listener, reason])
        .inc();
}

/// Why a connection ended because of its client, as the metric counts it.
#[derive(Clone, Copy)]
pub(super) enum Ended {
    /// The client did not send its preface.
    Preface,
    /// A first request, or the rest of a frame, did not come in time.
    HeadTimeout,
    /// The client exceeded a limit.
    Limit(Exceeded),
    /// The client broke a rule of a window.
    FlowControl,
    /// A compressed head cannot be decoded.
    Compression,
    /// A frame has an illegal size.
    FrameSize,
    /// A frame belongs to a closed stream.
    StreamClosed,
    /// A head never ends.
    Continuation,
    /// The client broke another rule.
    Protocol,
}

impl Ended {
    /// Returns the reason that is counted where the client is told `reason`.
    fn of(reason: Reason) -> Self {
        match reason {
            Reason::FLOW_CONTROL_ERROR => Ended::FlowControl,
            Reason::COMPRESSION_ERROR => Ended::Compression,
            Reason::FRAME_SIZE_ERROR => Ended::FrameSize,
            Reason::STREAM_CLOSED => Ended::StreamClosed,
            Reason::ENHANCE_YOUR_CALM => Ended::Continuation,
            _ => Ended::Protocol,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Ended::Preface => "preface",
            Ended::HeadTimeout => "head_timeout",
            Ended::Limit(limit) => limit.as_str(),
            Ended::FlowControl => "flow_control",
            Ended::Compression => "compression",
            Ended::FrameSize => "frame_size",
            Ended::StreamClosed => "stream_closed",
            Ended::Continuation => "continuation",
            Ended::Protocol => "protocol",
        }
    }
}
