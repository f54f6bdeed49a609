//! A push node: answers, streams, WebSockets, and floods, by the path asked for.
//!
//! `/kib`: 1 KiB. `/<wire>/<ms>`: a message every so often, never ending. `/silent/<wire>`: a
//! WebSocket without a message, a stream with one. `/held`: a poll without an answer. `/ws/server`, `/ws/client`: three messages at
//! once; an answer to each message. `/flood/<wire>`: as much as the socket takes. `/bulk`, `/sink`:
//! bytes without end to the client, or from it. A connection may begin with a PROXY protocol header,
//! and speak TLS: the first bytes tell.

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

/// Bytes all floods have got rid of.
pub static FLOODED: AtomicU64 = AtomicU64::new(0);

/// When a client that had stopped read on, by [`wire::now_ns`]; 0: none did, or its flood went on since.
pub static RESUMED: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds a flood took to go on after that.
pub static WENT_ON: AtomicU64 = AtomicU64::new(0);

/// When each node of this process was asked for a silent stream.
pub static UPGRADES: Mutex<BTreeMap<SocketAddr, Vec<std::time::Instant>>> =
    Mutex::new(BTreeMap::new());

/// Bytes all sinks have taken.
pub static SUNK: AtomicU64 = AtomicU64::new(0);

/// Polls that wait for their answer.
pub static HELD: AtomicU64 = AtomicU64::new(0);

/// What bulk is read and written by: enough that the load side's own system calls do not set the pace.
pub const BULK: usize = 256 * 1024;

/// What every bulk stream writes: one for all, as there may be thousands.
static PIECE: [u8; BULK] = [b'b'; BULK];

/// Length of the body of `/kib`.
pub const KIB: usize = 1024;

/// Messages of `/ws/server`, and that a `/ws/client` sends.
pub const MESSAGES: u32 = 3;

/// Send buffer of a flood's socket: what it adds is the same for every proxy, and small.
const FLOOD_SEND_BUFFER: usize = 64 * 1024;

/// Answer to the one key our clients send (the example of RFC 6455 §1.3).
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Serves `addresses` on a thread of its own, for the process's life.
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
        // A client that goes away ends its task with an error: that is no failure of the node.
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

/// The answer to an upgrade: proxies that make one of an HTTP/2 stream send a key of their own, and check.
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

/// Head of a stream without end.
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

/// The first message leaves in one segment with the head: a proxy that drops what it read beyond
/// the head loses it.
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

/// A message every `every`; connections begin at different phases, by their port.
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
