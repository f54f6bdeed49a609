//! A WebSocket client over one HTTP/2 stream.
//!
//! In: a connection and a path. Out: the socket and the head of the 200, or another answer. Source: RFC 8441
//! §4, §5.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Io;
use super::h2::H2;
use super::ws::Ws;

/// The version field of RFC 6455. RFC 8441 leaves out the key.
pub const VERSION: (&str, &str) = ("sec-websocket-version", "13");

/// Requests a WebSocket on a new stream. The answer's body is the stream, whatever its status.
pub async fn ask(
    client: &mut H2,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response<Duplex>, h2::Error> {
    let headers = [&[VERSION], headers].concat();
    let asked = client.connect_to(Some("websocket"), path, &headers).await?;
    let (head, recv) = asked.0.into_parts();
    let duplex = Duplex {
        recv,
        send: asked.1,
        unread: Bytes::new(),
    };
    Ok(Response::from_parts(head, duplex))
}

/// As [`ask`]; panics unless the answer is a 200.
pub async fn connect(client: &mut H2, path: &str, headers: &[(&str, &str)]) -> Ws {
    let answer = ask(client, path, headers).await.expect("an answer");
    assert_eq!(answer.status(), 200, "WebSocket {path}: {answer:?}");
    let (head, duplex) = answer.into_parts();
    let io: Box<dyn Io> = Box::new(duplex);
    Ws {
        socket: WebSocketStream::from_raw_socket(io, Role::Client, None).await,
        response: Response::from_parts(head, None),
    }
}

/// A stream as a socket. Dropping it before its end resets the stream.
#[derive(Debug)]
pub struct Duplex {
    recv: RecvStream,
    send: SendStream<Bytes>,
    unread: Bytes,
}

impl Duplex {
    /// Resets the stream.
    pub fn reset(mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }

    /// Waits until the other side resets the stream; returns the reason.
    pub async fn was_reset(&mut self) -> Result<h2::Reason, h2::Error> {
        std::future::poll_fn(|cx| self.send.poll_reset(cx)).await
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(e)) => return Poll::Ready(Err(io::Error::other(e))),
                Some(Ok(piece)) => self.unread = piece,
            }
        }
        let n = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..n]);
        self.unread.advance(n);
        let released = self.recv.flow_control().release_capacity(n);
        Poll::Ready(released.map_err(io::Error::other))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(data.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(e)) => return Poll::Ready(Err(io::Error::other(e))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let n = self.send.capacity().min(data.len());
        let piece = Bytes::copy_from_slice(&data[..n]);
        let sent = self.send.send_data(piece, false);
        Poll::Ready(sent.map(|()| n).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.send.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io::Error::other))
    }
}
