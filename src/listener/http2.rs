//! HTTP/2: each stream of a client connection is an exchange of its own that can be cut alone.
//!
//! Pingora's accept loop is kept for its bounds on malformed streams. WebSocket over HTTP/2
//! (RFC 8441) is not offered, so browsers open their WebSockets over HTTP/1.1.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use super::exchange::{CURRENT, Conn, Exchange, Reason};
use super::http::Front;

/// Serves the streams of one HTTP/2 connection.
pub struct Http2 {
    /// Pingora with our hooks.
    pub proxy: Arc<HttpProxy<Front>>,
    /// The client connection.
    pub conn: Arc<Conn>,
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        let ex = Exchange::new(self.conn.clone(), "h2");
        let serving = CURRENT.scope(ex.clone(), self.proxy.process_new_http(session, shutdown));
        // Dropping the future resets this stream only (RST_STREAM), its siblings go on.
        let reason = tokio::select! {
            biased;
            () = ex.kill() => ex.killed(),
            _ = serving => Reason::Done,
        };
        ex.close(reason, (0, 0));
        None
    }
}
