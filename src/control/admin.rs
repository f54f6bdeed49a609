//! The admin endpoint: metrics, health, node states, and the orders an operator may give.
//!
//! It has a listener of its own. Where a token is configured, every request must carry it, except requests
//! for the dashboard's page, which reveals nothing. Changes are POST only; a browser's cross-site POST and a
//! rebound host name are refused. Source: FAULTS D71.

mod dashboard;
mod nodes;
mod rebalances;
mod shared;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use self::shared::Admin;
use super::Running;
use super::certificates::Shown;
use super::endpoint::Endpoint;
use super::rebalance;
use crate::credentials::Warning;
use crate::observe::metrics;

/// Deadline for the head of a request: an operator's tool is quick, and a slow sender gets no longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest body of a request, in bytes: a rebalance may have one, of one JSON object.
const MAX_BODY: u64 = 4096;

/// Serves the admin endpoint on `socket` in the current runtime.
///
/// Errors: no descriptor is left.
pub fn start(
    asked: SocketAddr,
    socket: TcpListener,
    running: Arc<Running>,
    token: Option<String>,
) -> io::Result<Endpoint> {
    let accepting = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
    let task = tokio::spawn(serve(accepting, running, token));
    Ok(Endpoint::new(asked, socket, task))
}

async fn serve(socket: tokio::net::TcpListener, running: Arc<Running>, token: Option<String>) {
    let service = TowerToHyperService::new(router(running, token));
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            // An error ends this connection only.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn router(running: Arc<Running>, token: Option<String>) -> Router {
    let admin = Arc::new(Admin {
        running,
        token,
        watchers: AtomicUsize::default(),
    });
    dashboard::files()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/nodes", get(nodes::all))
        .route("/api/listeners", get(listeners))
        .route("/api/certificates", get(certificates))
        .route("/api/discovery", get(discovery))
        .route("/api/nodes/{node}/{order}", post(nodes::order))
        .route(
            "/api/pools/{pool}/rebalance",
            get(rebalances::progress).post(rebalances::begin),
        )
        .route(
            "/api/pools/{pool}/rebalance/cancel",
            post(rebalances::cancel),
        )
        .route("/api/pools/{pool}/forget", post(rebalances::forget))
        .route("/api/reload", post(reload))
        .layer(middleware::from_fn_with_state(admin.clone(), guard))
        .with_state(admin)
}

async fn guard(Shared(admin): Shared<Arc<Admin>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_page =
        *request.method() == http::Method::GET && dashboard::OPEN.contains(&request.uri().path());
    if let Some(token) = &admin.token
        && !is_page
        && !bears(headers, token)
    {
        let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, ask, "token missing or wrong\n").into_response();
    }
    if admin.token.is_none() && !host_is_address(headers) {
        return (
            StatusCode::MISDIRECTED_REQUEST,
            "expected an IP address or `localhost` as the host; other names need a token\n",
        )
            .into_response();
    }
    if request.method() == http::Method::POST && is_cross_site(headers) {
        return (StatusCode::FORBIDDEN, "cross-site request refused\n").into_response();
    }
    if let Some(status) = oversize(headers) {
        return (
            status,
            "expected a body of at most 4096 bytes with Content-Length\n",
        )
            .into_response();
    }
    next.run(request).await
}

/// Refuses a large body before the handler acts: most handlers read none, so nothing else would refuse it.
fn oversize(headers: &HeaderMap) -> Option<StatusCode> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Some(StatusCode::LENGTH_REQUIRED);
    }
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    let length: u64 = length.parse().ok()?;
    (length > MAX_BODY).then_some(StatusCode::PAYLOAD_TOO_LARGE)
}

fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .map(|v| v.as_bytes())
        .unwrap_or_default();
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    // Compared in constant time; the length is no secret.
    given.len() == token.len() && openssl::memcmp::eq(given, token.as_bytes())
}

/// Whether the host is an IP address or `localhost`: the owner of any other name could rebind
/// it to our address.
fn host_is_address(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let name = pushgate_plugins::host::normalise(host);
    name == "localhost"
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok()
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|v: &http::HeaderValue| v.to_str().ok())
    };
    let own = text(header::HOST).unwrap_or_default();
    let origin = text(header::ORIGIN);
    origin.is_some_and(|o| o.split_once("://").map(|(_, h)| h) != Some(own))
}

async fn metrics_text(Shared(admin): Shared<Arc<Admin>>) -> Response {
    let m = metrics::get();
    // Removes certificates that are no longer configured.
    m.not_after.reset();
    m.certificate_warnings.reset();
    // Of a keystore with several keys the first end counts.
    let mut ends = BTreeMap::new();
    for one in admin.running.certificates() {
        let end = ends.entry(one.name.clone()).or_insert(one.not_after);
        *end = one.not_after.min(*end);
        for warning in &one.warnings {
            let labels = [one.name.as_str(), warning.as_str()];
            m.certificate_warnings.with_label_values(&labels).set(1);
        }
    }
    for (name, end) in ends {
        m.not_after.with_label_values(&[&name]).set(end);
    }
    m.evenness.reset();
    for pool in admin.running.pools().values() {
        m.queued
            .with_label_values(&[&pool.name])
            .set(pool.waiting.len() as i64);
        m.evenness
            .with_label_values(&[&pool.name])
            .set(rebalance::evenness(pool));
    }
    admin.measure_nodes();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        m.text(),
    )
        .into_response()
}

async fn ready(Shared(admin): Shared<Arc<Admin>>) -> Response {
    match admin.running.unready() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn listeners(Shared(admin): Shared<Arc<Admin>>) -> Json<Value> {
    let mut addresses = admin.running.addresses();
    addresses.sort();
    Json(
        addresses
            .into_iter()
            .map(|(name, bound)| json!({ "name": name, "address": bound }))
            .collect(),
    )
}

async fn discovery(Shared(admin): Shared<Arc<Admin>>) -> Json<Value> {
    Json(admin.running.discovery.shown())
}

async fn certificates(Shared(admin): Shared<Arc<Admin>>) -> Json<Value> {
    let one = |c: Shown| {
        let warnings: Vec<_> = c.warnings.iter().map(Warning::as_str).collect();
        json!({
            "name": c.name, "names": c.names, "key": c.key, "not_after": c.not_after,
            "days_left": c.days_left, "listeners": c.listeners, "complete": c.complete, "ocsp": c.stapled,
            "alias": c.alias, "warnings": warnings,
        })
    };
    Json(admin.running.certificates().into_iter().map(one).collect())
}

async fn reload(Shared(admin): Shared<Arc<Admin>>) -> Response {
    match admin.running.reload().await {
        Ok(()) => "loaded\n".into_response(),
        Err(e) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{e}\n")).into_response(),
    }
}
