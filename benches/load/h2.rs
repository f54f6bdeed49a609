//! HTTP/2 clients: a connection with one stream, as a browser opens to a single push service, or with many.
//!
//! In: an address and a path. Out: the body of the answer, which reads like one of HTTP/1.
//! Source: RFC 9113 §8.1; §6.9 (bytes read are given back to the window at once).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};

use crate::client::{self, Conn, PATIENCE};
use crate::wire::Wire;
use crate::{BoxError, Options};

/// Opens a connection. Errors: the proxy does not speak HTTP/2.
pub async fn connect(options: &Options) -> Result<SendRequest<Bytes>, BoxError> {
    let tcp = client::tcp(options, None).await?;
    let tls = client::connector(false, b"h2");
    let tls = timeout(
        PATIENCE,
        tls.connect(ServerName::try_from("bench.test")?, tcp),
    )
    .await??;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("the proxy does not speak HTTP/2".into());
    }
    let (requests, connection) = h2::client::handshake(tls).await?;
    tokio::spawn(connection);
    Ok(requests)
}

/// Requests `path` on a connection of its own. Errors: no HTTP/2, or the status is not 200.
pub async fn ask(options: &Options, path: &str) -> Result<Conn, BoxError> {
    stream(
        &connect(options).await?,
        path,
        options.wire == Wire::WebSocket,
    )
    .await
}

/// Requests `path` on `requests`, as a WebSocket (RFC 8441) if `websocket`. Errors: the status is not 200.
pub async fn stream(
    requests: &SendRequest<Bytes>,
    path: &str,
    websocket: bool,
) -> Result<Conn, BoxError> {
    let mut requests = timeout(PATIENCE, requests.clone().ready()).await??;
    let uri = format!("https://bench.test{path}");
    let request = match websocket {
        false => http::Request::get(uri).body(())?,
        true => {
            // Waits for the proxy's settings, which allow an extended CONNECT.
            let settings = async {
                while !requests.is_extended_connect_protocol_enabled() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(PATIENCE, settings).await?;
            let request = http::Request::connect(uri).header("sec-websocket-version", "13");
            request
                .extension(Protocol::from_static("websocket"))
                .body(())?
        }
    };
    let (answer, up) = requests.send_request(request, !websocket)?;
    let answer = timeout(PATIENCE, answer).await??;
    if answer.status() != 200 {
        return Err(format!("wanted 200: {}", answer.status()).into());
    }
    Ok(Box::new(Body {
        stream: answer.into_body(),
        left: Bytes::new(),
        _up: up,
        _connection: requests,
    }))
}

/// Requests `path` with `cookie` and reads the whole answer. Returns the stickiness cookie that it sets.
pub async fn whole(
    requests: &mut SendRequest<Bytes>,
    path: &str,
    cookie: &str,
) -> Result<String, BoxError> {
    std::future::poll_fn(|cx| requests.poll_ready(cx)).await?;
    let mut request = http::Request::get(format!("https://bench.test{path}"));
    if !cookie.is_empty() {
        request = request.header("cookie", cookie);
    }
    let (answer, _) = requests.send_request(request.body(())?, true)?;
    let answer = answer.await?;
    let set = answer.headers().get("set-cookie");
    let set = set.and_then(|v| v.to_str().ok()?.split(';').next());
    let set = set.unwrap_or_default().to_owned();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let n = data?.len();
        body.flow_control().release_capacity(n)?;
    }
    Ok(set)
}

/// The answer's body.
struct Body {
    stream: RecvStream,
    /// Received bytes not read yet.
    left: Bytes,
    /// Kept because dropping it would end a WebSocket.
    _up: SendStream<Bytes>,
    /// Kept because the connection ends when the last handle for requests is dropped.
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
