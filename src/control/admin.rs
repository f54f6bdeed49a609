//! The admin endpoint: metrics, health, node states, and the orders an operator may give.
//!
//! It has a listener of its own. Where a token is configured, every request must carry it, except requests
//! for the dashboard's page, which reveals nothing, and whether the process lives and is ready. Changes are POST only; a browser's cross-site POST and a
//! rebound host name are refused. Connections are few, and each step has a deadline (`connections`).
//! Source: FAULTS D71.

mod connections;
mod dashboard;
mod edges;
pub mod health;
mod flows;
mod nodes;
mod peer;
mod probes;
mod rebalances;
mod shared;
mod silence;
mod timed;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use pushgate_plugins::unix;
use serde_json::{Value, json};

use self::connections::serve;
use self::peer::Peer;
use self::shared::{Admin, refused};
use super::Running;
use super::certificates::Shown;
use super::endpoint::Endpoint;
use crate::credentials::Warning;
use crate::stream::unix::Listening;

/// The API for programs: each path with its answers. A test holds it to the routes.
const OPENAPI: &str = include_str!("admin/openapi.json");

/// Deadline for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest body of a request, in bytes: a rebalance may have one, of one JSON object.
const MAX_BODY: usize = 4096;

/// Serves the admin endpoint on `socket` in the current runtime.
///
/// Errors: no descriptor is left.
pub fn start(
    asked: SocketAddr,
    socket: TcpListener,
    running: Arc<Running>,
    token: Option<String>,
) -> io::Result<Endpoint> {
    let accepting = Listening::new(asked, socket.try_clone()?)?;
    let task = tokio::spawn(serve(accepting, router(running, token)));
    Ok(Endpoint::new(asked, socket, task))
}

fn router(running: Arc<Running>, token: Option<String>) -> Router {
    let admin = Arc::new(Admin {
        running,
        token,
        watchers: AtomicUsize::default(),
    });
    dashboard::files()
        .route("/metrics", get(probes::metrics))
        .route("/healthz", get(probes::live))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/api/nodes", get(nodes::all))
        .route("/api/edges", get(edges::all))
        .route("/api/flows", get(flows::all))
        .route("/api/silence", get(silence::all))
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
        .route("/api/openapi.json", get(openapi))
        .layer(middleware::from_fn_with_state(admin.clone(), guard))
        .with_state(admin)
}

async fn guard(Shared(admin): Shared<Arc<Admin>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Arc<Peer>>().cloned();
    let path = request.uri().path();
    let is_open = *request.method() == http::Method::GET
        && (dashboard::is_open(path) || probes::OPEN.contains(&path));
    if let Err(Refusal {
        reason,
        status,
        why,
    }) = judge(&admin, &request, is_open)
    {
        refused(reason);
        if reason == "token" {
            let from = peer.map(|peer| unix::Shown(peer.address).to_string());
            let from = from.unwrap_or_default();
            log::warn!("admin: refused a request from {from}: token missing or wrong");
            let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (status, ask, why).into_response();
        }
        return (status, why).into_response();
    }
    if !is_open {
        peer.into_iter().for_each(|peer| peer.trust());
    }
    match with_body(request).await {
        Ok(request) => next.run(request).await,
        Err((status, why)) => {
            refused("body");
            (status, why).into_response()
        }
    }
}

/// Why a request is refused.
struct Refusal {
    /// The word in metrics.
    reason: &'static str,
    status: StatusCode,
    why: &'static str,
}

fn judge(admin: &Admin, request: &Request, is_open: bool) -> Result<(), Refusal> {
    let headers = request.headers();
    let refusal = |reason, status, why| {
        Err(Refusal {
            reason,
            status,
            why,
        })
    };
    if let Some(token) = &admin.token
        && !is_open
        && !bears(headers, token)
    {
        let why = "token missing or wrong\n";
        return refusal("token", StatusCode::UNAUTHORIZED, why);
    }
    if admin.token.is_none() && !host_is_address(headers) {
        let why = "expected an IP address or `localhost` as the host; other names need a token\n";
        return refusal("host", StatusCode::MISDIRECTED_REQUEST, why);
    }
    if request.method() == http::Method::POST && is_cross_site(headers) {
        let why = "cross-site request refused\n";
        return refusal("cross_site", StatusCode::FORBIDDEN, why);
    }
    match oversize(headers) {
        Some(status) => refusal("body", status, BODY),
        None => Ok(()),
    }
}

/// What the endpoint expects of a body.
const BODY: &str = "expected a body of at most 4096 bytes with Content-Length\n";

/// Reads the whole body under its deadline: many handlers read none, and the others would wait for it.
async fn with_body(request: Request) -> Result<Request, (StatusCode, &'static str)> {
    if !request.headers().contains_key(header::CONTENT_LENGTH) {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, Body::from(body))),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, BODY)),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            "expected the body within 5 s\n",
        )),
    }
}

/// Refuses a large body before it is read.
fn oversize(headers: &HeaderMap) -> Option<StatusCode> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Some(StatusCode::LENGTH_REQUIRED);
    }
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    let length: usize = length.parse().ok()?;
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

/// Whether a browser sent the request for another site. A browser says so itself (Fetch Metadata), and older
/// ones name the origin.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|v: &http::HeaderValue| v.to_str().ok())
    };
    let site = headers.get("sec-fetch-site").map(|v| v.as_bytes());
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return true;
    }
    let own = text(header::HOST).unwrap_or_default();
    let origin = text(header::ORIGIN);
    origin.is_some_and(|o| o.split_once("://").map(|(_, h)| h) != Some(own))
}

async fn listeners(Shared(admin): Shared<Arc<Admin>>) -> Json<Value> {
    let mut addresses = admin.running.addresses();
    addresses.sort();
    Json(
        addresses
            .into_iter()
            .map(|(name, bound)| json!({ "name": name, "address": unix::Shown(bound).to_string() }))
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
            "alias": c.alias, "warnings": warnings, "acme": c.acme,
        })
    };
    Json(admin.running.certificates().into_iter().map(one).collect())
}

/// Handles `POST /api/reload`.
async fn reload(Shared(admin): Shared<Arc<Admin>>) -> Response {
    match admin.running.reload().await {
        Ok(waiting) if waiting.is_empty() => "loaded\n".into_response(),
        Ok(waiting) => {
            let keys = waiting.join(", ");
            format!("loaded\nchanges of these keys wait for a restart: {keys}\n").into_response()
        }
        Err(e) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{e}\n")).into_response(),
    }
}

async fn openapi() -> Response {
    let head = [(header::CONTENT_TYPE, "application/json")];
    (head, OPENAPI).into_response()
}

#[cfg(test)]
mod tests;
