//! The routing table of an edge, without the edge: what decides on a flow.
//!
//! In: the number of nodes and plugins as in a file. Out: the table and its pool; requests and flows to ask it about.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pushgate::balance::Pool;
use pushgate::clock;
use pushgate::config::{Config, Limits};
use pushgate::route::Table;
use pushgate::upstream::Node;
use pushgate_plugins::PluginConfig;
use pushgate_plugins::api::{Flow, Target};
use pushgate_plugins::context::{Build, Keep};
use pushgate_plugins::head::Head;

/// A routing table, as the edge builds it from a file with `count` nodes and `plugins` (YAML).
pub struct Site {
    /// Decides.
    pub table: Table,
    /// The pool `push` with all nodes.
    pub pool: Arc<Pool>,
    /// Limits of the listener.
    pub limits: Limits,
}

impl Site {
    /// Makes it with `balance: least_flows`.
    pub fn new(count: usize, plugins: &str) -> Self {
        Self::balanced("least_flows", count, plugins)
    }

    /// Makes it.
    pub fn balanced(method: &str, count: usize, plugins: &str) -> Self {
        let nodes: String = (0..count)
            .map(|i| {
                format!(
                    "  n{i}: {{ address: 10.0.{}.{}:80 }}\n",
                    i / 250,
                    i % 250 + 1
                )
            })
            .collect();
        let names: Vec<String> = (0..count).map(|i| format!("n{i}")).collect();
        let text = format!(
            "nodes:\n{nodes}pools:\n  push: {{ nodes: [{}], balance: {method} }}\nlisteners:\n  - name: push\n    \
             bind: [127.0.0.1:8080]\n    mode: http\n    to: push\n    plugins: [{plugins}]\n",
            names.join(", ")
        );
        let config =
            Config::parse(&text, "bench", Path::new(".")).expect("the bench's file is legal");
        let conf = &config.pools["push"];
        let nodes: Vec<Arc<Node>> = config
            .nodes
            .iter()
            .map(|(name, n)| Node::new(name, n, conf.on_down, None))
            .collect();
        let pool = Arc::new(Pool::new("push", conf, nodes.clone()));
        let listener = &config.listeners[0];
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let build = Build {
            listener: "push",
            mode: listener.mode,
            tls: false,
            nodes: &known,
            pools: &[("push", &names[..])],
            dir: Path::new("."),
            keep: &Keep::default(),
        };
        let build = |p: &PluginConfig| {
            (
                p.as_str(),
                p.build(&build).expect("the bench's plugins are legal"),
            )
        };
        let plugins = listener.plugins.iter().map(build);
        let table = Table {
            plugins: plugins.collect(),
            hides_forwarding: false,
            default: Some(Target::Pool(pool.id)),
            pools: Arc::new(HashMap::from([(pool.id, pool.clone())])),
            nodes: Arc::new(nodes.into_iter().map(|n| (n.id, n)).collect()),
        };
        Site {
            table,
            pool,
            limits: listener.limits.clone(),
        }
    }
}

/// Returns a request with this cookie among others.
pub fn request(cookie: &str) -> Head {
    let head = format!(
        "GET /lightstreamer HTTP/1.1\r\nHost: push.mycompany.com\r\n\
         Cookie: theme=dark; {cookie}; consent=yes\r\n\r\n"
    );
    Head::request(head.as_bytes()).expect("a legal head")
}

/// Returns a flow of one client.
pub fn flow(request: &Head) -> Flow<'_> {
    let client = SocketAddr::from(([192, 0, 2, 7], 40_000));
    Flow {
        listener: "push",
        client,
        peer: client,
        source: client.ip(),
        vip: SocketAddr::from(([127, 0, 0, 1], 8080)),
        tls: None,
        host: "push.mycompany.com",
        request: Some(request),
        body: &[],
        wall: clock::date(),
        now: Instant::now(),
        random: 0x1234_5678_9abc_def0,
        last: None,
    }
}
