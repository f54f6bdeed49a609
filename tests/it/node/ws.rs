//! The node's WebSockets: `/ws/echo`, `/ws/first`, `/ws/tick`, `/ws/flood`, `/ws/silent`, `/ws/half`,
//! `/ws/decline`.
//!
//! In: an upgrade request. Out: the 101 and frames; the query says which side sends first, and in how many
//! writes. Source: RFC 6455 §4.2.2, §5.

use std::io;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::endpoints::{counted, set_sndbuf, step, whole};
use super::stream::Stream;
use super::{Conn, Request};

/// A WebSocket of the node over its connection's socket.
pub type Socket<'a> = WebSocketStream<&'a mut Stream>;

/// Answers a request below `/ws/`; the connection always ends with the WebSocket.
pub async fn serve(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    step(conn, request, 0).await?;
    if request.path() == "/ws/decline" {
        return whole(conn, "403 Forbidden", "declined\n").await;
    }
    let Some(head) = accept_head(conn, request, None) else {
        return whole(conn, "400 Bad Request", "not an upgrade\n").await;
    };
    match request.path() {
        "/ws/first" => first(conn, request, head).await?,
        "/ws/flood" => flood(conn, request, head).await?,
        "/ws/tick" => tick(conn, request, head).await?,
        "/ws/silent" | "/ws/half" => {
            conn.send(head).await?;
            if request.path() == "/ws/half" {
                // Binary, so that any four bytes would complete it.
                let mut frame = text_frame(&"half ".repeat(100));
                frame[0] = 0x82;
                conn.send(&frame[..frame.len() - 4]).await?;
            }
            return Err(conn.ended().await);
        }
        _ => {
            conn.send(head).await?;
            echo(socket(conn).await).await?;
        }
    }
    Ok(false)
}

/// The 101 that accepts `request`; `None` if it is not an upgrade to a WebSocket.
pub fn accept_head(conn: &Conn, request: &Request, protocol: Option<&str>) -> Option<String> {
    let key = request.header("sec-websocket-key")?;
    let accept = derive_accept_key(key.as_bytes());
    let protocol = protocol.map_or(String::new(), |p| {
        format!("Sec-WebSocket-Protocol: {p}\r\n")
    });
    let name = &conn.shared.name;
    // `early=1`: reports how many of the client's bytes came before the 101. There must be none.
    let early = request.query("early").map_or(String::new(), |_| {
        let mut scrap = [0; 4096];
        let waiting = futures_util::FutureExt::now_or_never(conn.stream.tcp().peek(&mut scrap));
        let waiting = waiting.and_then(Result::ok).unwrap_or_default();
        format!("X-Early: {}\r\n", conn.unread.len() + waiting)
    });
    let hints = request
        .query("hints")
        .map_or("", |_| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let cookie = request.query("cookie");
    let cookie = cookie.map_or(String::new(), |c| format!("Set-Cookie: {c}\r\n"));
    Some(format!(
        "{hints}HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}{early}{cookie}X-Node: {name}\r\n\r\n"
    ))
}

/// Turns the connection's socket into a WebSocket, including the bytes already read.
pub async fn socket(conn: &mut Conn) -> Socket<'_> {
    let unread = std::mem::take(&mut conn.unread);
    WebSocketStream::from_partially_read(&mut conn.stream, unread, Role::Server, None).await
}

/// Converts a WebSocket's error into an I/O error.
pub fn failed(error: Error) -> io::Error {
    match error {
        Error::Io(e) => e,
        other => io::Error::other(other),
    }
}

/// One text frame as a server sends it.
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let frame = Frame::message(text.to_owned().into_bytes(), OpCode::Data(Data::Text), true);
    frame.format(&mut out).expect("a frame fits a Vec");
    out
}

/// Sends first: `n` messages `first 0` …, in one write with the 101, or with `split=1` each in its own write;
/// then echoes.
async fn first(conn: &mut Conn, request: &Request, head: String) -> io::Result<()> {
    let messages = (0..request.number("n", 1)).map(|i| text_frame(&format!("first {i}")));
    let mut bytes = head.into_bytes();
    if request.query("split").is_some() {
        conn.send(&bytes).await?;
        for message in messages {
            tokio::task::yield_now().await;
            conn.send(message).await?;
        }
    } else {
        messages.for_each(|m| bytes.extend(m));
        conn.send(bytes).await?;
    }
    echo(socket(conn).await).await
}

/// Sends `n` messages (0: endless), `tick 0` …, one every `every` ms; then closes.
async fn tick(conn: &mut Conn, request: &Request, head: String) -> io::Result<()> {
    conn.send(head).await?;
    let (n, every) = (request.number("n", 0), request.millis("every", 10));
    let mut i = 0;
    while n == 0 || i < n {
        conn.send(text_frame(&format!("tick {i}"))).await?;
        i += 1;
        conn.pause(every).await?;
    }
    let mut ws = socket(conn).await;
    ws.close(None).await.map_err(failed)
}

/// Sends messages of `size` bytes as fast as the kernel takes them, and counts the bytes.
async fn flood(conn: &mut Conn, request: &Request, head: String) -> io::Result<()> {
    set_sndbuf(conn, request);
    conn.send(head).await?;
    let size = request.number("size", 1000) as usize;
    for i in 0..request.number("n", 1_000_000) {
        let message = text_frame(&format!("{i:0size$}"));
        counted(conn, &message).await?;
    }
    // The last bytes are in the kernel; waiting here keeps a reset from dropping them.
    Err(conn.ended().await)
}

async fn echo(mut ws: Socket<'_>) -> io::Result<()> {
    while let Some(message) = ws.next().await {
        let message = message.map_err(failed)?;
        if message.is_text() || message.is_binary() {
            ws.send(message).await.map_err(failed)?;
        }
    }
    Ok(())
}
