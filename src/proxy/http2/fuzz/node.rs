//! A node for the fuzz target: every request gets the same answer, larger than a frame and with a trailer.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BODY: usize = 40_000;

/// Serves every connection that `socket` accepts.
pub async fn serve(socket: TcpListener) {
    while let Ok((stream, _)) = socket.accept().await {
        tokio::spawn(answer(stream));
    }
}

/// Answers one request, then waits for the end of the connection.
async fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    while memchr::memmem::find(&request, b"\r\n\r\n").is_none() {
        match stream.read_buf(&mut request).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let mut answer =
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    answer.extend(format!("{BODY:x}\r\n").bytes());
    answer.extend([b'a'; BODY]);
    answer.extend(b"\r\n0\r\nx-trailer: 1\r\n\r\n");
    // The edge has closed if this fails.
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
    while stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {
        request.clear();
    }
}
