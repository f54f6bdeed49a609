//! The dashboard: one page with its scripts and style, and the stream of data it shows.
//!
//! In: a browser. Out: the state of nodes, pools and listeners each second, as server-sent events. The page
//! itself reveals nothing and needs no token. All it shows and does goes through the API, with the token. It
//! loads nothing from elsewhere. Source: FAULTS D71.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use prometheus::core::Collector;
use pushgate_plugins::unix::Shown;
use serde_json::{Value, json};

use super::shared::Admin;
use crate::control::rebalance;
use crate::observe::metrics;

/// A module of the script by its name.
macro_rules! script {
    ($name:literal) => {
        (
            concat!("/dashboard/", $name, ".js"),
            SCRIPT,
            include_str!(concat!("dashboard/", $name, ".js")),
        )
    };
}

/// Pause between two events.
const EVERY: Duration = Duration::from_secs(1);
/// Most dashboards open at once; each costs the control thread some 50 µs a second.
const MAX_WATCHERS: usize = 32;

/// No site may frame the page: it could trick an operator into pressing a button. The browser refuses to read
/// text as HTML (Trusted Types), so a name or a cause that looks like a tag stays text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The page and what it loads: path, kind, text.
const FILES: [(&str, &str, &str); 15] = [
    ("/", HTML, include_str!("dashboard/page.html")),
    (
        "/dashboard.css",
        STYLE,
        include_str!("dashboard/dashboard.css"),
    ),
    (
        "/dashboard.js",
        SCRIPT,
        include_str!("dashboard/dashboard.js"),
    ),
    script!("api"),
    script!("ask"),
    script!("certificates"),
    script!("changes"),
    script!("charts"),
    script!("dom"),
    script!("edges"),
    script!("node"),
    script!("nodes"),
    script!("pool"),
    script!("pools"),
    script!("table"),
];

/// Whether a path needs no token, because it answers everyone the same.
pub(super) fn is_open(path: &str) -> bool {
    FILES.iter().any(|(open, ..)| *open == path)
}

/// Returns the routes of the page, its files and its data.
pub(super) fn files() -> Router<Arc<Admin>> {
    let data = Router::new()
        .route("/api/pools", get(pools))
        .route("/api/events", get(events));
    let add =
        |router: Router<_>, (path, kind, text)| router.route(path, get(move || file(kind, text)));
    FILES.into_iter().fold(data, add)
}

async fn file(kind: &'static str, text: &'static str) -> Response {
    let head = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (head, text).into_response()
}

async fn pools(Shared(admin): Shared<Arc<Admin>>) -> Json<Value> {
    Json(admin.pools())
}

/// One open dashboard.
struct Watcher(Arc<Admin>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn events(Shared(admin): Shared<Arc<Admin>>) -> Response {
    if admin.watchers.fetch_add(1, Ordering::Relaxed) >= MAX_WATCHERS {
        admin.watchers.fetch_sub(1, Ordering::Relaxed);
        let said = "too many dashboards are open\n";
        return (StatusCode::SERVICE_UNAVAILABLE, said).into_response();
    }
    let first = (Watcher(admin), Duration::ZERO);
    let stream = futures_util::stream::unfold(first, |(watcher, pause)| async move {
        tokio::time::sleep(pause).await;
        let event = Event::default().data(watcher.0.shown().to_string());
        Some((Ok::<_, Infallible>(event), (watcher, EVERY)))
    });
    Sse::new(stream).into_response()
}

impl Admin {
    /// Returns the data of one event.
    fn shown(&self) -> Value {
        let running = &self.running;
        json!({
            "ready": running.unready().map_or(Value::Bool(true), Value::String),
            "nodes": self.nodes(), "pools": self.pools(), "listeners": self.listeners(),
            "discovery": running.discovery.shown(), "site": self.edges(),
        })
    }

    /// Returns all pools by name.
    pub(super) fn pools(&self) -> Value {
        let pools = self.running.pools();
        let mut sorted: Vec<_> = pools.values().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let one = |pool: &&Arc<crate::balance::Pool>| {
            let nodes: Vec<&str> = pool.nodes.iter().map(|n| n.name.as_str()).collect();
            json!({
                "name": pool.name, "nodes": nodes, "waiting": pool.waiting.len(),
                "flows": pool.nodes.iter().map(|n| n.live()).sum::<usize>(),
                "site_flows": pool.nodes.iter().map(|n| n.load.of_site()).sum::<usize>(),
                "evenness": rebalance::evenness(pool),
                "rebalance": self.running.rebalance_progress(&pool.name),
            })
        };
        sorted.iter().map(one).collect()
    }

    /// Returns listeners by name, with their connections and hidden bytes.
    fn listeners(&self) -> Value {
        let addresses = self.running.addresses();
        let mut names: Vec<&String> = addresses.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        let one = |name: &&String| {
            let of = |all: &&(String, std::net::SocketAddr)| all.0 == **name;
            let bound = addresses
                .iter()
                .filter(of)
                .map(|(_, at)| Shown(*at).to_string());
            let bound: Vec<_> = bound.collect();
            let open = metrics::get().connections.with_label_values(&[name]).get();
            json!({
                "name": name, "addresses": bound, "connections": open, "hidden": hidden(name),
            })
        };
        names.iter().map(one).collect()
    }
}

/// Returns how many relayed flows of a listener have ended, and the hidden bytes that 99 % of them did not
/// exceed, rounded up to a bound of the histogram. `within` counts the flows up to each bound, so that the page
/// can tell the recent ones from those before.
fn hidden(listener: &str) -> Value {
    let histogram = metrics::get().hidden.with_label_values(&[listener]);
    let families = histogram.collect();
    let metric = families.first().and_then(|f| f.get_metric().first());
    // Both from one look, so that no flow is in one of them only.
    let flows = metric.map_or(0, |m| m.get_histogram().get_sample_count());
    let buckets = metric.map(|m| m.get_histogram().get_bucket().to_vec());
    let buckets = buckets.unwrap_or_default();
    let most = buckets.iter().find(|b| {
        let within = b.cumulative_count();
        within > 0 && within.saturating_mul(100) >= flows.saturating_mul(99)
    });
    let within = buckets
        .iter()
        .map(|b| json!([b.upper_bound(), b.cumulative_count()]));
    json!({ "flows": flows, "p99": most.map(|b| b.upper_bound()), "within": within.collect::<Value>() })
}
