//! HTTP/2: each stream of a client connection is an exchange of its own that can be cut alone.
//!
//! Pingora's accept loop is kept for its bounds on malformed streams. WebSocket over HTTP/2
//! (RFC 8441) is not offered, so browsers open their WebSockets over HTTP/1.1.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use self::client_io::ClientIo;
use super::conn::Conn;
use super::flow::Exchange;
use super::hooks::{CURRENT, ProxyHooks};
use super::serve::Service;
use crate::observe::end_reason::EndReason;
use crate::stream::side::Side;

pub mod client_io;
pub mod connector;
pub mod node_head;
mod node_io;

/// Serves the connection to its end: Pingora's accept loop, each stream an exchange of its own.
pub async fn serve(side: Side, conn: Arc<Conn>, service: Arc<Service>) {
    let io = Box::new(ClientIo::new(side));
    let proxy = service.proxy.clone();
    let app = Arc::new(Http2 { proxy, conn });
    app.process_new(io, &service.drain).await;
}

/// Serves the streams of one HTTP/2 connection.
struct Http2 {
    proxy: Arc<HttpProxy<ProxyHooks>>,
    conn: Arc<Conn>,
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
            reason = ex.kill() => reason,
            _ = serving => EndReason::Done,
        };
        let body = ex.record.lock().body;
        ex.close(reason, body);
        None
    }
}
