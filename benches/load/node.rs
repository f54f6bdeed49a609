//! A push node: answers, streams, WebSockets and floods, by the path of the request.
//!
//! - `/kib`: 1 KiB. `/held`: a poll without an answer. `/who`: the node's address.
//! - `/<wire>/<ms>`: a message each `<ms>` milliseconds, without end.
//! - `/silent/<wire>`: a WebSocket without a message, or a stream with one.
//! - `/ws/server`: three messages at once. `/ws/client`: an answer to each message.
//! - `/flood/<wire>`: as much as the socket takes.
//! - `/bulk`, `/sink`: bytes without end to the client, or from it.
//!
//! A connection may begin with a PROXY protocol header, and may speak TLS; its first bytes show which.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use base64::Engine as _;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, interval_at};

use crate::incoming::{self, Incoming};
use crate::wire::{self, MASKED_MESSAGE, Wire, message};

/// Bytes that all floods have written.
pub static FLOODED: AtomicU64 = AtomicU64::new(0);

/// When a stopped client read on, by [`wire::now_ns`]; 0: no client did, or its flood has continued since.
pub static RESUMED: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds from then until the flood could write again.
pub static WENT_ON: AtomicU64 = AtomicU64::new(0);

/// Times at which each node of this process got a request for a silent stream.
pub static UPGRADES: Mutex<BTreeMap<SocketAddr, Vec<std::time::Instant>>> =
    Mutex::new(BTreeMap::new());

/// Bytes that all sinks have read.
pub static SUNK: AtomicU64 = AtomicU64::new(0);

/// Number of polls that have arrived and get no answer.
pub static HELD: AtomicU64 = AtomicU64::new(0);

/// Size of one read or write of bulk, in bytes: large enough that the load's system calls are no limit.
pub const BULK: usize = 256 * 1024;

/// The bytes that every bulk stream writes, shared because there may be thousands of streams.
static PIECE: [u8; BULK] = [b'b'; BULK];

/// Length of the body of `/kib`.
pub const KIB: usize = 1024;

/// Number of messages that `/ws/server` sends, and that a client of `/ws/client` sends.
pub const MESSAGES: u32 = 3;

/// Send buffer of a flood's socket, in bytes. It adds the same small amount for every proxy.
const FLOOD_SEND_BUFFER: usize = 64 * 1024;

/// Answer to the one key that our clients send (the example of RFC 6455 §1.3).
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Serves `addresses` on a thread of its own until the process ends.
pub fn start(addresses: &[SocketAddr]) -> io::Result<()> {
    let (ready, started) = mpsc::sync_channel(1);
    let addresses = addresses.to_vec();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let served = runtime.and_then(|r| {
            r.block_on(async {
                for address in addresses {
                    tokio::spawn(accept(listen(address)?));
                }
                let _ = ready.send(Ok(()));
                std::future::pending::<io::Result<()>>().await
            })
        });
        let _ = ready.send(served);
    });
    started.recv().map_err(io::Error::other)?
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        // A client that leaves ends its task with an error, which is no failure of the node.
        tokio::spawn(async move { serve(incoming::of(stream).await?).await });
    }
}

async fn serve(mut stream: Incoming) -> io::Result<()> {
    let kib = [
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            KIB
        )
        .as_bytes(),
        &[b'k'; KIB],
    ]
    .concat();
    let mut got = Vec::with_capacity(2048);
    loop {
        while !got.windows(4).any(|w| w == b"\r\n\r\n") {
            if stream.read_buf(&mut got).await? == 0 {
                return Ok(());
            }
        }
        let line = got.split(|b| *b == b' ').nth(1).unwrap_or_default();
        let path = String::from_utf8_lossy(line).into_owned();
        let switching = switching(&got);
        got.clear();
        if path == "/kib" {
            stream.write_all(&kib).await?;
            continue;
        }
        if path.starts_with("/who") {
            let who = stream.tcp().local_addr()?.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", who.len());
            stream.write_all((head + &who).as_bytes()).await?;
            continue;
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        return match parts[..] {
            ["silent", wire] => silent(stream, wire.parse().map_err(io::Error::other)?).await,
            ["held"] => {
                HELD.fetch_add(1, Ordering::Relaxed);
                gone(&mut stream).await
            }
            ["ws", "server"] => speak(stream).await,
            ["ws", "client"] => answer(stream).await,
            ["bulk"] => bulk(stream).await,
            ["sink"] => sink(stream).await,
            ["flood", wire] => flood(stream, wire.parse().map_err(io::Error::other)?).await,
            [wire, ms] => {
                let every = Duration::from_millis(ms.parse().map_err(io::Error::other)?);
                let wire = wire.parse().map_err(io::Error::other)?;
                tell(stream, wire, every, &switching).await
            }
            _ => {
                stream
                    .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    .await
            }
        };
    }
}

/// Returns the answer to an upgrade, for any key. A proxy that turns an HTTP/2 stream into an upgrade sends
/// a key of its own and checks the answer.
fn switching(request: &[u8]) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let text = String::from_utf8_lossy(request);
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let digest = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{}{GUID}", key.unwrap_or_default()).as_bytes(),
    );
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    SWITCHING.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &accept)
}

/// Returns the head of an endless stream.
fn head(wire: Wire) -> String {
    match wire {
        Wire::WebSocket => SWITCHING.to_owned(),
        Wire::Chunked => "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
            .to_owned(),
        Wire::Length => format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            1_u64 << 40
        ),
    }
}

async fn silent(mut stream: Incoming, wire: Wire) -> io::Result<()> {
    if let (Ok(at), Ok(mut all)) = (stream.tcp().local_addr(), UPGRADES.lock()) {
        all.entry(at).or_default().push(std::time::Instant::now());
    }
    stream.write_all(head(wire).as_bytes()).await?;
    if wire != Wire::WebSocket {
        stream.write_all(&wire.frame(&message(0))).await?;
    }
    gone(&mut stream).await
}

/// Sends the first message in one segment with the head. A proxy that drops the bytes it read after the
/// head loses this message.
async fn speak(mut stream: Incoming) -> io::Result<()> {
    let first = Wire::WebSocket.frame(&message(0));
    stream
        .write_all(&[SWITCHING.as_bytes(), &first].concat())
        .await?;
    for seq in 1..MESSAGES {
        stream
            .write_all(&Wire::WebSocket.frame(&message(seq)))
            .await?;
    }
    gone(&mut stream).await
}

async fn answer(mut stream: Incoming) -> io::Result<()> {
    stream.write_all(SWITCHING.as_bytes()).await?;
    let mut got = [0; MASKED_MESSAGE];
    while stream.read_exact(&mut got).await.is_ok() {
        let body = &got[MASKED_MESSAGE - wire::MESSAGE..];
        stream.write_all(&Wire::WebSocket.frame(body)).await?;
    }
    Ok(())
}

async fn gone(stream: &mut Incoming) -> io::Result<()> {
    let mut rest = [0; 512];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Sends a message every `every`. Connections begin at different phases, by their port.
async fn tell(
    mut stream: Incoming,
    wire: Wire,
    every: Duration,
    switching: &str,
) -> io::Result<()> {
    let head = match wire {
        Wire::WebSocket => switching.to_owned(),
        _ => head(wire),
    };
    stream.write_all(head.as_bytes()).await?;
    let port = u64::from(stream.tcp().peer_addr()?.port());
    let phase = Duration::from_micros(port * 7919 % every.as_micros().max(1) as u64);
    let mut ticks = interval_at(Instant::now() + phase, every);
    let mut rest = [0; 512];
    for seq in 0.. {
        tokio::select! {
            _ = ticks.tick() => stream.write_all(&wire.frame(&message(seq))).await?,
            n = stream.read(&mut rest) => if n? == 0 { break },
        }
    }
    Ok(())
}

async fn bulk(mut stream: Incoming) -> io::Result<()> {
    stream.write_all(head(Wire::Length).as_bytes()).await?;
    loop {
        stream.write_all(&PIECE).await?;
    }
}

async fn sink(mut stream: Incoming) -> io::Result<()> {
    let mut piece = vec![0; BULK];
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            n => SUNK.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}

async fn flood(mut stream: Incoming, wire: Wire) -> io::Result<()> {
    SockRef::from(stream.tcp()).set_send_buffer_size(FLOOD_SEND_BUFFER)?;
    stream.write_all(head(wire).as_bytes()).await?;
    let piece = wire.frame(&[b'f'; 16 * 1024]);
    loop {
        let mut left = &piece[..];
        while !left.is_empty() {
            let n = stream.write(left).await?;
            match RESUMED.swap(0, Ordering::Relaxed) {
                0 => {}
                at => WENT_ON.store(wire::now_ns() - at, Ordering::Relaxed),
            }
            FLOODED.fetch_add(n as u64, Ordering::Relaxed);
            left = &left[n..];
        }
    }
}
