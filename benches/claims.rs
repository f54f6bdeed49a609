//! First flows at one edge of a site, without sockets of clients: routing, the claim at the store, routing again.
//!
//! In: the URL of the store, a time since 1970 in ms to begin at, first flows a second, clients. Out: a line for each
//! client on standard output: its node, the node that this edge would have chosen alone, and when it was asked and
//! told in microseconds since the beginning. Two of these at once, with the same times, are two edges to which each
//! client comes at the same moment: `site.py` starts them and compares.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "cases/site.rs"]
#[allow(dead_code, reason = "the cases use the rest")]
mod site;

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use pushgate::clock;
use pushgate::config::Config;
use pushgate::route::{Decision, FirstDecision};
use pushgate::site::{Claims, OtherEdges, store};
use pushgate_plugins::api::{Flow, Peers};
use pushgate_plugins::head::Head;
use site::{Site, flow, request};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Longest wait of a flow. In production it is 5 ms; here a flow that is late must be told, not presumed.
const WAIT: Duration = Duration::from_secs(1);
/// Flows that begin together.
const TICK: Duration = Duration::from_millis(1);
/// Most flows at once. Beyond this the edge is slower than asked for, as clients with few connections make it.
const MOST: u64 = 4_000;

/// What became of one client: its node, the node of this edge's own choice, when it was asked and told.
type Told = (String, String, Duration, Duration);

struct Edge {
    site: Site,
    request: Head,
    claims: Arc<Claims>,
    begun: Instant,
    /// Clients that have their node.
    told: AtomicU64,
}

impl Edge {
    /// Sends the first flow of client `n` on its way.
    async fn first_flow(self: Arc<Self>, n: u32) -> Told {
        let asked_at = self.begun.elapsed();
        let from = SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + n), 40_000));
        let new = |random| Flow {
            client: from,
            peer: from,
            source: IpAddr::from(from.ip()),
            random,
            ..flow(&self.request)
        };
        let first = self.site.table.decide_or_ask(&new(fastrand::u64(..)), &[]);
        let FirstDecision::Ask(asked, Some(choice)) = first else {
            panic!("a new client, and a node that is up");
        };
        let until = Instant::now() + WAIT;
        let told = self.claims.ask((asked, Some(choice.id), Vec::new()), until);
        timeout(WAIT, told).await.expect("in time").expect("told");
        let told_at = self.begun.elapsed();
        self.told.fetch_add(1, Ordering::Relaxed);
        let Decision::Node(to) = self.site.table.decide(&new(0), &[]) else {
            panic!("a node is up");
        };
        (to.node.name.clone(), choice.name.clone(), asked_at, told_at)
    }
}

/// Joins the site whose store is at `url`, and waits until it serves.
async fn join(url: &str) -> Edge {
    let text = format!(
        "state: {{ redis: {{ url: \"{url}\", wait: 1s }} }}\nnodes: {{ n: {{ address: 10.0.0.1:80 }} }}\nlisteners:\n  \
         - {{ name: push, bind: [127.0.0.1:8080], mode: http, to: n }}\n"
    );
    let config = Config::parse(&text, "bench", Path::new(".")).expect("a legal file");
    let store = store(&config).expect("no files").expect("a store");
    let claims = Claims::start(&store).expect("OpenSSL");
    tokio::spawn(store.clone().run());
    while !claims.serves() {
        sleep(Duration::from_millis(10)).await;
    }
    let site = Site::new(3, "{ sticky_ip: { capacity: 10000000 } }");
    claims.use_pools(Arc::new(HashMap::from([(site.pool.id, site.pool.clone())])));
    let peers: Arc<dyn Peers> = Arc::new(OtherEdges(claims.clone()));
    site.table
        .plugins
        .sticky
        .iter()
        .for_each(|p| p.join(&peers));
    Edge {
        site,
        request: request("a=b"),
        claims,
        begun: Instant::now(),
        told: AtomicU64::new(0),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, at, pace, clients] = args.as_slice() else {
        panic!("usage: claims URL AT PACE CLIENTS");
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let (at, pace, clients) = (number(at), number(pace), number(clients));
    let mut edge = join(url).await;
    let now = clock::wall()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    sleep(
        Duration::from_millis(at)
            .checked_sub(now)
            .expect("not begun yet"),
    )
    .await;
    edge.begun = Instant::now();
    let edge = Arc::new(edge);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut flows: Vec<JoinHandle<Told>> = Vec::new();
    while (flows.len() as u64) < clients {
        ticks.tick().await;
        let due = (edge.begun.elapsed().as_secs_f64() * pace as f64) as u64;
        let free = edge.told.load(Ordering::Relaxed) + MOST;
        for n in flows.len() as u64..due.min(clients).min(free) {
            flows.push(tokio::spawn(edge.clone().first_flow(n as u32)));
        }
    }
    let mut lines = Vec::new();
    for flow in flows {
        let (node, choice, asked, told) = flow.await.expect("no panic");
        let (asked, told) = (asked.as_micros(), told.as_micros());
        writeln!(lines, "{node} {choice} {asked} {told}").expect("memory");
    }
    std::io::stdout()
        .write_all(&lines)
        .expect("standard output");
}
