//! `pushgate demo`: two push nodes in this process, and the configuration of an edge in front of them.
//!
//! In: a port. Out: running nodes, the YAML of the edge, and commands for a person to try. The edge has no
//! code for the demo and serves its nodes as any others.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

mod node;
mod serve;
mod stream;
mod websocket;

pub use node::{COOKIE, NAMES};
pub use serve::serve_nodes;

/// Time after which [`Demo::announce`] stops waiting for the edge to listen.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two attempts to connect to the edge.
const START_PAUSE: Duration = Duration::from_millis(20);

/// A demo: its nodes run, and its edge is configured but not started.
pub struct Demo {
    /// Configuration of the edge, YAML.
    pub configuration: String,
    /// Address on which the edge will listen.
    pub edge: SocketAddr,
    /// Address on which the admin endpoint will listen.
    pub admin: SocketAddr,
}

impl Demo {
    /// Starts the two nodes on their own thread, and writes the configuration of an edge on loopback
    /// `port` (0: any free port). The nodes live as long as the process.
    ///
    /// Errors: `port` is taken, or the nodes cannot be started.
    pub fn start(port: u16) -> io::Result<Demo> {
        let edge = free(port)?;
        let admin = free(0)?;
        let (ready, started) = mpsc::sync_channel(1);
        let metrics = format!("http://{admin}/metrics");
        thread::Builder::new()
            .name("demo nodes".into())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(e) => return drop(ready.send(Err(e))),
                };
                runtime.block_on(async {
                    let nodes = serve_nodes(&metrics).await;
                    // The receiver waits for this message, so `send` cannot fail.
                    let _ = ready.send(nodes);
                    std::future::pending::<()>().await;
                });
            })?;
        let nodes = started.recv().map_err(io::Error::other)??;
        Ok(Demo {
            configuration: configuration(edge.port(), admin.port(), nodes),
            edge,
            admin,
        })
    }

    /// Waits on its own thread until the edge listens, then prints [`Demo::banner`]. So every printed
    /// address works at once. Prints an error on standard error after 30 s without success.
    pub fn announce(&self) {
        let (edge, banner) = (self.edge, self.banner());
        thread::spawn(move || {
            let end = Instant::now() + START_DEADLINE;
            while TcpStream::connect(edge).is_err() {
                if Instant::now() > end {
                    return eprintln!(
                        "the edge does not listen on {edge} after {START_DEADLINE:?}; see the log"
                    );
                }
                thread::sleep(START_PAUSE);
            }
            println!("{banner}");
        });
    }

    /// Returns the text for a person: the page, the dashboard, the metrics, curl commands. The line of the
    /// page begins with `page: `.
    pub fn banner(&self) -> String {
        let edge = format!("http://{}", self.edge);
        let mut text = format!(
            "Pushgate demo: two push nodes, {} and {}, behind one edge.\n\n\
             page:      {edge}/\n\
             dashboard: http://{admin}/\n\
             metrics:   http://{admin}/metrics\n\n\
             Try, from another terminal (-b and -c keep the cookie, so you stay on one node):\n",
            NAMES[0],
            NAMES[1],
            admin = self.admin
        );
        for (path, what) in [
            (
                "/hello",
                "one answer; without the jar perhaps from the other node",
            ),
            ("/sse", "server-sent events"),
            ("/stream/chunked", "a chunked stream"),
            ("/stream/length", "a stream with Content-Length"),
            ("/poll", "one long poll"),
        ] {
            let line = format!("curl -N -b jar -c jar {edge}{path}");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {line:<62} # {what}");
        }
        text.push_str("\nThe WebSocket is at /ws. Ctrl-C stops the demo.");
        text
    }
}

/// Returns the YAML of an edge on loopback `port` with its admin endpoint on `admin_port`, in front of
/// `nodes` (in the order of [`NAMES`]). It is laid out as a person would write it.
pub fn configuration(port: u16, admin_port: u16, nodes: [SocketAddr; 2]) -> String {
    let [first, second] = NAMES;
    let [first_at, second_at] = nodes;
    format!(
        "\
admin: {{ bind: 127.0.0.1:{admin_port} }}
drain_deadline: 1s
nodes:
  {first}: {{ address: {first_at} }}
  {second}: {{ address: {second_at} }}
pools:
  demo:
    nodes: [{first}, {second}]
    balance: least_flows
    health: {{ http: {{ path: /healthz }}, interval: 250ms, timeout: 500ms, rise: 1, fall: 2 }}
    on_down: evict
listeners:
  - name: demo
    bind: [127.0.0.1:{port}]
    mode: http
    to: demo
    plugins:
      - sticky_cookie: {{ name: {COOKIE}, max_age: 8h }}
      - forwarded: {{}}
"
    )
}

/// Checks that the loopback `port` is free (0: picks a free one) and returns its address. The edge binds
/// the address a moment later.
fn free(port: u16) -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()
}

#[cfg(test)]
mod tests;
