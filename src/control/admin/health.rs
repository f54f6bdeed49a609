//! Health and metrics at an address of their own, without token: `admin.health`.
//!
//! In: `GET` of a balancer or a collector. Out: the answers of the admin endpoint on the same paths; 404 on any
//! other. Nothing can be changed here, so that neither a token nor the name of the host counts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::routing::get;

use super::connections::serve;
use super::probes;
use super::shared::Admin;
use crate::config::HealthPath;
use crate::control::Running;
use crate::control::endpoint::Endpoint;
use crate::stream::unix::Listening;

/// Serves `paths` on `socket` in the current runtime.
///
/// Errors: no descriptor is left.
pub fn start(
    asked: SocketAddr,
    socket: TcpListener,
    running: Arc<Running>,
    paths: &[HealthPath],
) -> io::Result<Endpoint> {
    let admin = Arc::new(Admin {
        running,
        token: None,
        watchers: AtomicUsize::default(),
    });
    let accepting = Listening::new(asked, socket.try_clone()?)?;
    let router = router(paths).with_state(admin);
    let task = tokio::spawn(serve(accepting, router));
    Ok(Endpoint::new(asked, socket, task))
}

fn router(paths: &[HealthPath]) -> Router<Arc<Admin>> {
    let has = |path| paths.contains(&path);
    let mut router = Router::new();
    if has(HealthPath::Livez) {
        router = router.route("/livez", get(probes::live));
    }
    if has(HealthPath::Readyz) {
        router = router.route("/readyz", get(probes::ready));
    }
    if has(HealthPath::Metrics) {
        router = router.route("/metrics", get(probes::metrics));
    }
    router
}
