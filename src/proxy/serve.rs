//! Serves one client connection in the protocol it speaks.
//!
//! In: an admitted connection. Out: a future that ends with it. Source: Lightstreamer clustering §1 (layers 7
//! and 4).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::conn::Conn;
use super::service::Service;
use super::{http1, http2, tcp};
use crate::config::Mode;
use crate::stream::side::Side;

/// Returns the future that serves one connection. Each protocol's future is boxed on its own, so a silent
/// stream does not keep the memory of the largest one.
pub fn serve(
    service: &Arc<Service>,
    mut side: Side,
    conn: Arc<Conn>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let conf = conn.listener.conf.load();
    let (mode, limit) = (conf.mode, conf.tcp.user_timeout.0);
    drop(conf);
    if let Some(tcp) = side.tcp_mut() {
        tcp.watch(limit);
    }
    let alpn = side.ssl().and_then(|s| s.selected_alpn_protocol());
    let h2 = alpn == Some(b"h2");
    let service = service.clone();
    match (mode, h2) {
        (Mode::Tcp, _) => Box::pin(tcp::serve(side, conn)),
        (Mode::Http, true) => Box::pin(http2::serve(side, conn, service)),
        (Mode::Http, false) => Box::pin(http1::connection::serve(side, conn, service)),
    }
}
