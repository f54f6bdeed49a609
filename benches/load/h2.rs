//! One HTTP/2 connection with one stream, as a browser has it for a push service of its own.
//!
//! In: where to, a path. Out: the body of the answer, to be read like that of HTTP/1.
//! Source: RFC 9113 §8.1; §6.9 (what was read is given back to the window at once).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::client::{self, Conn, PATIENCE};
use crate::{Failure, Options};

/// Asks for `path` on a connection of its own. Errors: no HTTP/2, or another status than 200.
pub async fn ask(options: &Options, path: &str) -> Result<Conn, Failure> {
    let tcp = client::tcp(options, None).await?;
    let tls = client::connector(false, b"h2");
    let tls = timeout(
        PATIENCE,
        tls.connect(ServerName::try_from("bench.test")?, tcp),
    )
    .await??;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("the proxy speaks no HTTP/2".into());
    }
    let (mut requests, connection) = h2::client::handshake(tls).await?;
    tokio::spawn(connection);
    let request = http::Request::get(format!("https://bench.test{path}")).body(())?;
    let (answer, _) = requests.send_request(request, true)?;
    let answer = timeout(PATIENCE, answer).await??;
    if answer.status() != 200 {
        return Err(format!("wanted 200: {}", answer.status()).into());
    }
    Ok(Box::new(Body {
        stream: answer.into_body(),
        left: Bytes::new(),
        _connection: requests,
    }))
}

/// The answer's body.
struct Body {
    stream: RecvStream,
    /// Received and not read yet.
    left: Bytes,
    /// The connection ends when nobody can ask any more.
    _connection: SendRequest<Bytes>,
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.left = data.map_err(io::Error::other)?,
            }
            let n = self.left.len();
            let given = self.stream.flow_control().release_capacity(n);
            given.map_err(io::Error::other)?;
        }
        let n = self.left.len().min(buf.remaining());
        buf.put_slice(&self.left.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Body {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
