//! The node's ordinary answers, by path: hello, streams, server-sent events, long poll, flood.
//!
//! In: requests. Out: bytes, each message in one write. Source: Lightstreamer clustering §1 (data
//! packets forwarded immediately), Diffusion load balancers, "Load balancer closing silent connections".

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::{Conn, Health, Request, SeenRequest, faults, hold, ws};
use crate::{js, soak, tlcp};

/// Serves the requests of one connection until it ends.
pub async fn serve(conn: &mut Conn) -> io::Result<()> {
    while let Some(request) = Request::read(conn).await? {
        let seen = SeenRequest {
            at: Instant::now(),
            head: request.head.clone(),
            target: request.target.clone(),
            client: request.header("x-client-id").map(str::to_owned),
        };
        let id = conn.id;
        conn.shared.note(|s| s.connections[id].requests.push(seen));
        if !answer(conn, &request).await? || request.close {
            conn.stream.shutdown().await?;
            return Ok(());
        }
    }
    Ok(())
}

/// Answers one request; false if the connection must end after it.
async fn answer(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    match request.path() {
        "/hello" => hello(conn, request).await,
        "/echo" => echo(conn, request).await,
        "/stream/chunked" => chunked(conn, request).await,
        "/stream/length" => length(conn, request).await,
        "/stream/close" => close_delimited(conn, request).await,
        "/sse" => events(conn, request).await,
        "/poll" => poll(conn).await,
        "/hold" => hold::serve(conn, request).await,
        "/say" => say(conn, request).await,
        "/flood" => flood(conn, request).await,
        "/client.html" => page(conn, "text/html", include_str!("../../js/client.html")).await,
        "/client.js" => page(conn, "text/javascript", &js::web_library().await).await,
        "/soak" => soak::serve(conn, request).await,
        "/soak/echo" => soak::uploads::serve(conn, request).await,
        "/health" | "/lightstreamer/healthcheck" => health(conn).await,
        path if path.starts_with("/ws/") => ws::serve(conn, request).await,
        path if path.starts_with("/fault/") => faults::serve(conn, request).await,
        path if path.starts_with("/lightstreamer") => tlcp::serve(conn, request).await,
        _ => whole(conn, "404 Not Found", "no such path\n").await,
    }
}

/// Sends one whole answer with Content-Length.
pub async fn whole(conn: &mut Conn, status: &str, body: &str) -> io::Result<bool> {
    let name = &conn.shared.name;
    let head = format!(
        "HTTP/1.1 {status}\r\nX-Node: {name}\r\nContent-Length: {}\r\n",
        body.len()
    );
    conn.send(format!("{head}Content-Type: text/plain\r\n\r\n{body}"))
        .await?;
    Ok(true)
}

/// Sends a file that a browser loads.
async fn page(conn: &mut Conn, kind: &str, text: &str) -> io::Result<bool> {
    let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n";
    let length = text.len();
    conn.send(format!(
        "{head}Content-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{text}"
    ))
    .await?;
    Ok(true)
}

/// Answers `NAME 17`, where the counter distinguishes answers. `?cookie=C` sets an application cookie.
async fn hello(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let count = conn.shared.hellos.fetch_add(1, Ordering::Relaxed) + 1;
    let body = format!("{} {count}\n", conn.shared.name);
    let (name, length) = (&conn.shared.name, body.len());
    let cookie = request.query("cookie");
    let cookie = cookie.map_or(String::new(), |c| format!("Set-Cookie: {c}\r\n"));
    let body = if request.method == "HEAD" {
        ""
    } else {
        body.as_str()
    };
    let head =
        format!("HTTP/1.1 200 OK\r\nX-Node: {name}\r\n{cookie}Content-Length: {length}\r\n\r\n");
    conn.send(format!("{head}{body}")).await?;
    Ok(true)
}

/// Answers with the request's body as it arrived.
pub async fn echo(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let name = &conn.shared.name;
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Node: {name}\r\nContent-Length: {}\r\n\r\n",
        request.body.len()
    );
    conn.send([head.as_bytes(), &request.body].concat()).await?;
    Ok(true)
}

/// Sends `n` chunks (0: endless) of `size` bytes, one every `every` ms.
async fn chunked(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    head(conn, "Transfer-Encoding: chunked\r\n").await?;
    let (n, every) = (request.number("n", 10), request.millis("every", 10));
    let mut i = 0;
    while n == 0 || i < n {
        step(conn, request, i).await?;
        conn.chunk(piece(i, request)).await?;
        i += 1;
        conn.pause(every).await?;
    }
    conn.send("0\r\n\r\n").await?;
    Ok(true)
}

/// Sends the same pieces under one Content-Length.
async fn length(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let (n, every) = (request.number("n", 10), request.millis("every", 10));
    let total: usize = (0..n).map(|i| piece(i, request).len()).sum();
    head(conn, &format!("Content-Length: {total}\r\n")).await?;
    for i in 0..n {
        step(conn, request, i).await?;
        conn.send(piece(i, request)).await?;
        conn.pause(every).await?;
    }
    Ok(true)
}

/// Sends the same pieces; the connection's end ends them.
async fn close_delimited(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    head(conn, "Connection: close\r\n").await?;
    let every = request.millis("every", 10);
    for i in 0..request.number("n", 10) {
        step(conn, request, i).await?;
        conn.send(piece(i, request)).await?;
        conn.pause(every).await?;
    }
    Ok(false)
}

/// Sends server-sent events: `n` (0: endless), one every `every` ms; `silent=1` sends the head only.
async fn events(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    head(
        conn,
        "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
    )
    .await?;
    let (n, every) = (request.number("n", 0), request.millis("every", 10));
    if request.query("silent").is_some() {
        return Err(conn.ended().await);
    }
    let mut i = 0;
    while n == 0 || i < n {
        step(conn, request, i).await?;
        let event = format!("id: {i}\ndata: {} {i}\n\n", conn.shared.name);
        conn.chunk(event).await?;
        i += 1;
        conn.pause(every).await?;
    }
    conn.send("0\r\n\r\n").await?;
    Ok(true)
}

/// With `step=1`, waits until the test allows the `i`th piece; see [`super::Node::allow`].
pub async fn step(conn: &mut Conn, request: &Request, i: u64) -> io::Result<()> {
    if request.query("step").is_none() {
        return Ok(());
    }
    let mut steps = conn.shared.steps.subscribe();
    // Bytes that arrive meanwhile stay in the socket, where a test may look for them.
    let _ = steps.wait_for(|allowed| *allowed > i).await;
    Ok(())
}

/// Sends exactly the bytes of `bytes` (percent-encoded) in one write, then those of `then` in another. With
/// `step=1` each write waits for the test; with `end=1` the connection ends afterwards.
async fn say(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    step(conn, request, 0).await?;
    conn.send(request.query("bytes").unwrap_or_default())
        .await?;
    if let Some(then) = request.query("then") {
        step(conn, request, 1).await?;
        conn.send(then).await?;
    }
    Ok(request.query("end").is_none())
}

/// Answers when the test allows it; see [`super::Node::answer_polls`].
async fn poll(conn: &mut Conn) -> io::Result<bool> {
    let mut told = conn.shared.poll.subscribe();
    let text = tokio::select! {
        told = told.wait_for(Option::is_some) => told.ok().and_then(|t| t.clone()),
        end = conn.ended() => return Err(end),
    };
    whole(conn, "200 OK", &text.unwrap_or_default()).await
}

/// Writes as fast as the kernel takes bytes and counts them. `sndbuf` sets SO_SNDBUF, `framing` is `chunked`,
/// `length` or `close`, `bytes` limits what is written.
async fn flood(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    set_sndbuf(conn, request);
    let framing = request
        .query("framing")
        .unwrap_or_else(|| "chunked".to_owned());
    let bytes = request.number("bytes", 1 << 30) / BLOCK as u64 * BLOCK as u64;
    let header = match framing.as_str() {
        "length" => format!("Content-Length: {bytes}\r\n"),
        "close" => "Connection: close\r\n".to_owned(),
        _ => "Transfer-Encoding: chunked\r\n".to_owned(),
    };
    head(conn, &header).await?;
    for i in 0..bytes / BLOCK as u64 {
        let block = flood_block(i);
        let block = match framing.as_str() {
            "length" | "close" => block,
            _ => [format!("{BLOCK:x}\r\n").as_bytes(), &block, b"\r\n"].concat(),
        };
        counted(conn, &block).await?;
    }
    if framing == "chunked" {
        conn.send("0\r\n\r\n").await?;
    }
    Ok(framing != "close")
}

/// Writes `bytes`, and counts each part the moment the kernel takes it.
pub async fn counted(conn: &mut Conn, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = conn.stream.write(bytes).await?;
        conn.shared
            .flooded
            .fetch_add(taken as u64, Ordering::Relaxed);
        bytes = &bytes[taken..];
    }
    Ok(())
}

/// Applies `sndbuf` of the query (bytes; the kernel doubles it).
pub fn set_sndbuf(conn: &Conn, request: &Request) {
    if let Some(size) = request.query("sndbuf").and_then(|v| v.parse().ok()) {
        let _ = socket2::SockRef::from(conn.stream.tcp()).set_send_buffer_size(size);
    }
}

async fn health(conn: &mut Conn) -> io::Result<bool> {
    let health = *conn.shared.health.lock();
    match health {
        Health::Ok => whole(conn, "200 OK", "OK\r\n").await,
        Health::Odd => whole(conn, "200 OK", "MAINTENANCE\r\n").await,
        Health::Fail => whole(conn, "500 Internal Server Error", "FAIL\r\n").await,
        Health::Hang => Err(conn.ended().await),
    }
}

async fn head(conn: &mut Conn, framing: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Node: {}\r\n{framing}\r\n",
        conn.shared.name
    );
    conn.send(head).await?;
    // Head and first piece are two writes: this exposes an edge that holds a head back until a body arrives.
    conn.pause(Duration::from_millis(1)).await
}

/// The `i`th piece of a stream: its number, padded to `size` bytes.
fn piece(i: u64, request: &Request) -> String {
    let size = request.number("size", 0) as usize;
    format!("{:.<size$}\n", format!("{i:08}"))
}

/// The `i`th block of a flood: its number repeated, so that a lost or moved byte shows.
pub fn flood_block(i: u64) -> Vec<u8> {
    format!("{i:08}").repeat(BLOCK / 8).into_bytes()
}

/// Bytes of one flood write.
pub const BLOCK: usize = 4096;
