//! The load program of the benches: a push node and its clients in one process, one measurement a run.
//!
//! In: a scenario's name and options. Out: one line of JSON with its figures. Node and clients share
//! a process so that both read one clock; each has a thread of its own.
//!
//! Usage:
//! - `load certificate DIR [COUNT]` writes certificates.
//! - `load SCENARIO --node ADDR,… --to ADDR [--tls] [--h2] [--held] [--kept] [--browser] [--pid N]
//!   [--wire WORD] [--seconds N] [--count N] [--every MS] [--streams N] [--client-first] [--up] [--resume]
//!   [--storm N] [--hosts N] [--until-eof] [--remote] [--others ADDR --order-to ADDR --order TEXT]
//!   [--kill PID]` measures.
//! - `load node --node ADDR,…` serves until it is killed, for a run with `--remote` that has more connections
//!   than one process may hold.

mod bulk;
mod client;
mod ends;
mod evict;
mod floor;
mod h2;
mod handshakes;
mod incoming;
mod messages;
mod node;
mod others;
mod process;
mod requests;
mod silent;
mod storm;
mod upgrades;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use process::Process;
use serde_json::{Value, json};
use wire::Wire;

/// Any error; the program ends at the first one.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The options of one measurement.
#[derive(Clone)]
struct Options {
    /// Addresses on which this process serves as push nodes.
    nodes: Vec<SocketAddr>,
    /// Where the clients connect: to a proxy, or straight to a node.
    to: SocketAddr,
    /// Clients speak TLS.
    tls: bool,
    /// Clients speak HTTP/2, which needs TLS.
    h2: bool,
    /// Silent streams of each HTTP/2 connection.
    streams: usize,
    /// Silent requests are polls without an answer.
    held: bool,
    /// Silent connections are kept open after one answered request.
    kept: bool,
    /// Requests have the head of a browser.
    browser: bool,
    /// The proxy, if its CPU or memory is measured.
    proxy: Option<Process>,
    /// How messages are framed.
    wire: Wire,
    /// Length of the measured window.
    window: Duration,
    /// Number of connections at once, or of upgrades in all.
    count: usize,
    /// Interval between the messages of a connection.
    every: Duration,
    /// WebSocket clients send before the node does.
    client_first: bool,
    /// Bulk flows from the clients to the node.
    up: bool,
    /// Clients resume with a session ticket.
    resume: bool,
    /// Clients that do handshakes without pause during the measurement.
    storm: usize,
    /// Number of names that handshakes request in turn; 0: only `bench.test`.
    hosts: usize,
    /// The window ends when standard input does.
    until_eof: bool,
    /// Where the clients of another node connect.
    others: Option<SocketAddr>,
    /// The address to which an order is sent, and its text.
    order: Option<(SocketAddr, String)>,
    /// Process of the node to kill, or to stop.
    kill: Option<i32>,
}

fn main() -> Result<(), BoxError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let deed = args
        .first()
        .ok_or("usage: load SCENARIO --node ADDR --to ADDR …")?;
    if deed == "certificate" {
        let dir = Path::new(args.get(1).ok_or("usage: load certificate DIR [COUNT]")?);
        return certificates(dir, args.get(2).map_or(Ok(0), |n| n.parse())?);
    }
    let options = parse(&args[1..])?;
    if !args.iter().any(|a| a == "--remote") {
        node::start(&options.nodes)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let mut figures = runtime.block_on(async {
        match deed.as_str() {
            "node" => std::future::pending().await,
            "bulk" => bulk::run(&options).await,
            "bulk_memory" => bulk::memory(&options).await,
            "connections" => bulk::connections(&options).await,
            "handshakes" => handshakes::run(&options).await,
            "requests" => requests::run(&options).await,
            "messages" => messages::run(&options).await,
            "upgrades" => upgrades::run(&options).await,
            "silent" => silent::run(&options).await,
            "evict" => evict::run(&options).await,
            "floor" => floor::run(&options),
            "others" => others::run(&options).await,
            "storm" => storm::run(&options).await,
            "hidden" => silent::hidden(&options).await,
            "resume" => silent::resume(&options).await,
            other => Err(format!("unknown scenario `{other}`").into()),
        }
    })?;
    figures["took_s"] = json!(begun.elapsed().as_secs_f64());
    println!("{figures}");
    Ok(())
}

fn parse(args: &[String]) -> Result<Options, BoxError> {
    let value = |name: &str| {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
    };
    let number = |name: &str, default: u64| value(name).map_or(Ok(default), |v| v.parse());
    let nodes = value("--node").ok_or("--node is missing")?;
    let proxy = value("--pid")
        .map(|p| p.parse())
        .transpose()?
        .map(Process::new);
    Ok(Options {
        nodes: nodes.split(',').map(str::parse).collect::<Result<_, _>>()?,
        // `load node` opens no connections.
        to: value("--to").map_or(Ok(([0, 0, 0, 0], 0).into()), |to| to.parse())?,
        tls: args.iter().any(|a| a == "--tls"),
        h2: args.iter().any(|a| a == "--h2"),
        streams: usize::try_from(number("--streams", 1)?)?,
        held: args.iter().any(|a| a == "--held"),
        kept: args.iter().any(|a| a == "--kept"),
        browser: args.iter().any(|a| a == "--browser"),
        proxy,
        wire: value("--wire").map_or(Ok(Wire::WebSocket), |w| w.parse())?,
        window: Duration::from_secs(number("--seconds", 3)?),
        count: usize::try_from(number("--count", 64)?)?,
        every: Duration::from_millis(number("--every", 250)?),
        client_first: args.iter().any(|a| a == "--client-first"),
        up: args.iter().any(|a| a == "--up"),
        resume: args.iter().any(|a| a == "--resume"),
        storm: usize::try_from(number("--storm", 0)?)?,
        hosts: usize::try_from(number("--hosts", 0)?)?,
        until_eof: args.iter().any(|a| a == "--until-eof"),
        others: value("--others").map(|a| a.parse()).transpose()?,
        order: match (value("--order-to"), value("--order")) {
            (Some(to), Some(text)) => Some((to.parse()?, text.clone())),
            _ => None,
        },
        kill: value("--kill").map(|p| p.parse()).transpose()?,
    })
}

/// Writes `host0.crt` and `host0.key`, and both in `both.pem`: ECDSA P-256, self-signed. Writes `count` more
/// certificates with their keys as `host0.pem`, `host1.pem`, …, each for a name of its own.
fn certificates(dir: &Path, count: usize) -> Result<(), BoxError> {
    for i in 0..count {
        let made = rcgen::generate_simple_self_signed(vec![host(i)])?;
        let both = made.cert.pem() + &made.signing_key.serialize_pem();
        std::fs::write(dir.join(format!("host{i}.pem")), both)?;
    }
    let made = rcgen::generate_simple_self_signed(vec!["bench.test".to_owned()])?;
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    std::fs::write(dir.join("host0.crt"), &cert)?;
    std::fs::write(dir.join("host0.key"), &key)?;
    std::fs::write(dir.join("both.pem"), cert + &key)?;
    Ok(())
}

/// Returns the name of certificate number `i` of many.
fn host(i: usize) -> String {
    format!("host{i}.bench.test")
}

/// Returns the 50th and 99th percentile and the greatest of `nanos`, in microseconds.
fn percentiles(mut nanos: Vec<u64>) -> Value {
    nanos.sort_unstable();
    let at = |share: f64| {
        let i = (nanos.len() as f64 * share) as usize;
        nanos.get(i).map(|n| *n as f64 / 1000.0)
    };
    let max = nanos.last().map(|n| *n as f64 / 1000.0);
    json!({ "p50_us": at(0.50), "p99_us": at(0.99), "max_us": max })
}

/// Returns the proxy's CPU per thousand units of work, in microseconds.
fn per_thousand(cpu_ns: Option<u64>, units: usize) -> Option<f64> {
    cpu_ns
        .filter(|_| units > 0)
        .map(|ns| ns as f64 / units as f64)
}
