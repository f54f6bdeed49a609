//! A demo node: a small push server that a person can stop and start from its page.
//!
//! In: requests. Out: messages with the node's name and a count, and a health check that fails while
//! the node is "stopped".

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;

use super::node::{Both, COOKIE, Message, NAMES, Node};
use super::stream;

/// Content security policy: the page contains all it needs, and a browser may load nothing else.
/// "Forget me" bypasses the edge, so the page may connect to loopback ports.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self' \
                      http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'none'";

/// Starts the two nodes on free loopback ports; they end with the current runtime. The page links to
/// the URL `metrics`.
///
/// Errors: no port can be bound.
pub async fn serve_nodes(metrics: &str) -> io::Result<[SocketAddr; 2]> {
    let both = Arc::new(Both {
        up: Default::default(),
        switching: Mutex::new(()),
        metrics: metrics.to_owned(),
    });
    both.up
        .iter()
        .for_each(|up| up.store(true, Ordering::Relaxed));
    Ok([
        serve(NAMES[0], both.clone()).await?,
        serve(NAMES[1], both).await?,
    ])
}

async fn serve(name: &'static str, both: Arc<Both>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let node = Arc::new(Node {
        name,
        port: address.port(),
        answers: AtomicU64::new(0),
        both,
    });
    let router = router(node);
    tokio::spawn(async move {
        // With Nagle's algorithm a small message would wait for the acknowledgement of the last one.
        let listener = listener.tap_io(|tcp| drop(tcp.set_nodelay(true)));
        if let Err(e) = axum::serve(listener, router).await {
            log::error!("demo node {name}: {e}");
        }
    });
    Ok(address)
}

fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/hello", get(hello))
        .route("/healthz", get(healthz))
        .route("/ws", get(stream::ws))
        .route("/sse", get(stream::sse))
        .route("/stream/chunked", get(stream::chunked))
        .route("/stream/length", get(stream::length))
        .route("/poll", get(stream::poll))
        .route("/demo/nodes", get(nodes))
        .route("/demo/nodes/{name}/{deed}", post(switch))
        .route("/demo/forget", post(forget))
        .with_state(node)
}

type ThisNode = State<Arc<Node>>;

const UNCACHED: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

async fn page() -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (UNCACHED, policy, Html(include_str!("page.html"))).into_response()
}

async fn hello(State(node): ThisNode) -> Response {
    let message = Message {
        node: node.name,
        count: node.next_answer(),
        over: "hello",
    };
    (UNCACHED, Json(message)).into_response()
}

async fn healthz(State(node): ThisNode) -> (StatusCode, &'static str) {
    if node.is_up(node.name) {
        (StatusCode::OK, "OK\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stopped\n")
    }
}

#[derive(Serialize)]
struct Overview<'a> {
    here: &'a str,
    port: u16,
    nodes: [OneOf; 2],
    metrics: &'a str,
}

#[derive(Serialize)]
struct OneOf {
    name: &'static str,
    up: bool,
}

async fn nodes(State(node): ThisNode) -> Response {
    let overview = Overview {
        here: node.name,
        port: node.port,
        nodes: NAMES.map(|name| OneOf {
            name,
            up: node.is_up(name),
        }),
        metrics: &node.both.metrics,
    };
    (UNCACHED, Json(overview)).into_response()
}

/// Stops or starts a node's health check. The last node that is up cannot be stopped, because the page
/// could then reach no node to start one again.
async fn switch(
    State(node): ThisNode,
    Path((name, deed)): Path<(String, String)>,
) -> (StatusCode, &'static str) {
    let Some(this) = NAMES.iter().position(|n| *n == name) else {
        return (StatusCode::NOT_FOUND, "no such node\n");
    };
    let up = match deed.as_str() {
        "start" => true,
        "stop" => false,
        _ => return (StatusCode::NOT_FOUND, "expected stop or start\n"),
    };
    let _held = node.both.switching.lock();
    if !up && !node.is_up(NAMES[1 - this]) {
        return (StatusCode::CONFLICT, "the other node is stopped already\n");
    }
    node.both.up[this].store(up, Ordering::Relaxed);
    (StatusCode::OK, "done\n")
}

/// Expires the edge's cookie in the browser; the page cannot, because the cookie is HttpOnly. The
/// request must bypass the edge, which lets no node set its cookie. It works from another port because
/// browsers share cookies between the ports of a host (RFC 6265 §8.5).
async fn forget() -> (StatusCode, HeaderMap) {
    let expired = HeaderValue::try_from(format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly"));
    let expired = expired.expect("the cookie's name is ASCII");
    let headers = HeaderMap::from_iter([(header::SET_COOKIE, expired)]);
    (StatusCode::NO_CONTENT, headers)
}
