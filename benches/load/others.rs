//! Measures what clients feel while another process attacks the proxy: new clients, live streams, and clients
//! that come back for their node.
//!
//! In: two nodes (`--node`), the proxy's TLS listener (`--to`), a line on standard input when the proxy is up,
//! and one when the attack has begun. The plain listeners on ports 80 and 81 of the same address stick clients by the query `u`, and by
//! address. Every client has an address in a /64 of its own, which must be local. Out: `ready` before the
//! attack, then times to connect (with a full TLS handshake) and to get an answer, ages of the streams'
//! messages, clients that were refused, streams and assignments that were lost.

use std::io::{BufRead, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::client::{self, Conn};
use crate::wire::{Reader, Wire};
use crate::{BoxError, Options, percentiles};

/// Live streams, with a message each 10 ms.
const STREAMS: u16 = 20;
/// Clients that have a node before the attack, and ask for it afterwards: so many of each table.
const RETURNING: u16 = 60;
/// Port of the listener that sticks by the query, and of the one that sticks by address.
const BY_QUERY: u16 = 80;
const BY_ADDRESS: u16 = 81;
/// A new client that is not served within this time counts as refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two new clients.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Felt {
    connects_ns: Vec<u64>,
    answers_ns: Vec<u64>,
    ages_ns: Vec<u64>,
    refused: usize,
}

/// Runs the measurement.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    // The nodes are up, so the proxy can be started.
    line().await?;
    let felt = Arc::new(Mutex::new(Felt::default()));
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let stream = open(options.to, n).await?;
        streams.push(tokio::spawn(follow(stream, felt.clone())));
    }
    let mut nodes = Vec::new();
    for n in 0..RETURNING {
        nodes.push(places(options.to, n).await?);
    }
    println!("ready");
    std::io::stdout().flush()?;
    line().await?;
    *felt.lock().expect("no holder panics") = Felt::default();
    let begun = Instant::now();
    for n in 0.. {
        if begun.elapsed() >= options.window {
            break;
        }
        newcomer(options.to, n, &felt).await;
        sleep(PAUSE).await;
    }
    let lost_streams = streams.iter().filter(|s| s.is_finished()).count();
    let mut felt = std::mem::take(&mut *felt.lock().expect("no holder panics"));
    // Backwards: of those that were forgotten, half get the other node by turns.
    let mut lost = [0, 0];
    for n in (0..RETURNING).rev() {
        // Refused because memory is short: its assignment is not lost.
        let Ok(now) = places(options.to, n).await else {
            felt.refused += 1;
            continue;
        };
        let was = &nodes[usize::from(n)];
        lost[0] += usize::from(now[0] != was[0]);
        lost[1] += usize::from(now[1] != was[1]);
    }
    Ok(json!({
        "served": felt.answers_ns.len(), "refused": felt.refused, "lost_streams": lost_streams,
        "lost_by_query": lost[0], "lost_by_address": lost[1],
        "connect": percentiles(felt.connects_ns), "answer": percentiles(felt.answers_ns),
        "message": percentiles(felt.ages_ns),
    }))
}

/// Waits for a line on standard input.
async fn line() -> Result<(), BoxError> {
    let read = || std::io::stdin().lock().read_line(&mut String::new());
    tokio::task::spawn_blocking(read).await??;
    Ok(())
}

/// Address `n` of the network `group`, in a /64 of its own.
fn source(group: u16, n: u16) -> SocketAddr {
    (Ipv6Addr::new(0x2001, 0xdb8, group, n, 0, 0, 0, 1), 0).into()
}

async fn tcp(from: SocketAddr, to: SocketAddr) -> Result<TcpStream, BoxError> {
    let socket = TcpSocket::new_v6()?;
    socket.bind(from)?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn secure(connector: &TlsConnector, stream: TcpStream) -> Result<Conn, BoxError> {
    let name = ServerName::try_from("bench.test")?;
    Ok(Box::new(connector.connect(name, stream).await?))
}

async fn open(to: SocketAddr, n: u16) -> Result<Conn, BoxError> {
    let connector = client::connector(false, b"http/1.1");
    let mut conn = secure(&connector, tcp(source(2, n), to).await?).await?;
    client::ask(&mut conn, "/chunked/10", false, "").await?;
    client::head(&mut conn, "200").await?;
    Ok(conn)
}

async fn follow(mut conn: Conn, felt: Arc<Mutex<Felt>>) {
    let (mut reader, mut got) = (Reader::new(Wire::Chunked), Vec::with_capacity(4096));
    while conn.read_buf(&mut got).await.is_ok_and(|n| n > 0) {
        let mut felt = felt.lock().expect("no holder panics");
        reader.feed(&got, |m| felt.ages_ns.push(m.age_ns));
        got.clear();
    }
}

/// Lets one client connect, ask and leave.
async fn newcomer(to: SocketAddr, n: u16, felt: &Mutex<Felt>) {
    let connector = client::connector(false, b"http/1.1");
    let begun = Instant::now();
    let served = timeout(PATIENCE, async {
        let mut conn = secure(&connector, tcp(source(3, n), to).await?).await?;
        let connected = begun.elapsed();
        client::ask(&mut conn, "/kib", false, "").await?;
        client::head(&mut conn, "200").await?;
        Ok::<_, BoxError>((connected, begun.elapsed() - connected))
    });
    let served = served.await;
    let mut felt = felt.lock().expect("no holder panics");
    match served {
        Ok(Ok((connected, answered))) => {
            felt.connects_ns.push(connected.as_nanos() as u64);
            felt.answers_ns.push(answered.as_nanos() as u64);
        }
        _ => felt.refused += 1,
    }
}

/// Returns the nodes that client `n` gets: by its query, and by its address.
async fn places(to: SocketAddr, n: u16) -> Result<[String; 2], BoxError> {
    let path = format!("/who?u=c{n}");
    let by_query = SocketAddr::new(to.ip(), BY_QUERY);
    let by_address = SocketAddr::new(to.ip(), BY_ADDRESS);
    let who = async |to| who(tcp(source(4, n), to).await?, &path).await;
    Ok([who(by_query).await?, who(by_address).await?])
}

async fn who(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> Result<String, BoxError> {
    let mut conn: Conn = Box::new(stream);
    client::ask(&mut conn, path, false, "Connection: close\r\n").await?;
    let (_, mut rest) = timeout(PATIENCE, client::head(&mut conn, "200")).await??;
    timeout(PATIENCE, conn.read_to_end(&mut rest)).await??;
    Ok(String::from_utf8_lossy(&rest).into_owned())
}
