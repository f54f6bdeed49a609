//! An HTTP/2 client on one connection: many requests at once, bodies piece by piece.
//!
//! In: requests. Out: heads, and DATA as it arrives. The client reopens windows at once unless a test holds
//! them. Source: RFC 9113 §5.2, §8.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};

use super::{Dial, Io};
use crate::deadline;

/// One connection.
#[derive(Clone)]
pub struct H2 {
    send: SendRequest<Bytes>,
    scheme: &'static str,
    host: String,
}

impl H2 {
    /// Connects; with TLS, ALPN must choose `h2`.
    pub async fn connect(dial: &Dial) -> H2 {
        let mut dial = dial.clone();
        let scheme = match &mut dial.tls {
            Some(tls) => {
                tls.alpn = b"\x02h2";
                "https"
            }
            None => "http",
        };
        Self::over(dial.io().await, scheme, &dial.host).await
    }

    /// Uses a stream that is already connected.
    pub async fn over(io: impl Io + 'static, scheme: &'static str, host: &str) -> H2 {
        Self::with(&h2::client::Builder::new(), io, scheme, host).await
    }

    /// As [`H2::over`], with its own settings.
    pub async fn with(
        builder: &h2::client::Builder,
        io: impl Io + 'static,
        scheme: &'static str,
        host: &str,
    ) -> H2 {
        let handshake = builder.handshake(io);
        let (send, connection) = handshake.await.expect("an HTTP/2 handshake");
        tokio::spawn(async move {
            // The requests on the connection report its end.
            let _ = connection.await;
        });
        H2 {
            send,
            scheme,
            host: host.to_owned(),
        }
    }

    /// Sends a request for `path` at the connection's host; does not read the answer's body.
    pub async fn open(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<RecvStream>, h2::Error> {
        let host = self.host.clone();
        self.open_at(&host, path, headers).await
    }

    /// As [`H2::open`], for another `:authority`.
    pub async fn open_at(
        &mut self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut request = Request::get(format!("{}://{host}{path}", self.scheme));
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let request = request.body(()).expect("a legal request");
        self.send = self.send.clone().ready().await?;
        let (response, _) = self.send.send_request(request, true)?;
        deadline("an HTTP/2 answer", response).await
    }

    /// Sends CONNECT, with `:protocol` if given, and leaves the stream open.
    pub async fn connect_to(
        &mut self,
        protocol: Option<&'static str>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let uri = match protocol {
            Some(_) => format!("{}://{}{path}", self.scheme, self.host),
            None => self.host.clone(),
        };
        let mut request = Request::builder().method(Method::CONNECT).uri(uri);
        if let Some(protocol) = protocol {
            request = request.extension(Protocol::from_static(protocol));
        }
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let request = request.body(()).expect("a legal request");
        self.send = self.send.clone().ready().await?;
        let (response, send) = self.send.send_request(request, false)?;
        Ok((deadline("an HTTP/2 answer", response).await?, send))
    }

    /// Whether the server has announced extended CONNECT (RFC 8441 §3). Its settings have arrived once it has
    /// answered a request.
    pub fn takes_protocols(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }

    /// Sends a request for `path`. The stream stays open as long as the caller keeps the future; it need not
    /// be polled.
    pub async fn begin(&mut self, path: &str) -> ResponseFuture {
        let request = Request::get(format!("{}://{}{path}", self.scheme, self.host));
        let request = request.body(()).expect("a legal request");
        self.send = self.send.clone().ready().await.expect("a live connection");
        self.send.send_request(request, true).expect("a request").0
    }

    /// POSTs `parts`, each in its own DATA frame, and ends the stream with an empty frame; reads the whole
    /// answer.
    pub async fn upload(&mut self, path: &str, parts: &[&[u8]]) -> Response<Vec<u8>> {
        let url = format!("{}://{}{path}", self.scheme, self.host);
        let request = Request::post(url).body(()).expect("a legal request");
        self.send = self.send.clone().ready().await.expect("a live connection");
        let sent = self.send.send_request(request, false);
        let (response, mut body) = sent.expect("a request");
        for part in parts {
            body.send_data(Bytes::copy_from_slice(part), false)
                .expect("DATA");
        }
        body.send_data(Bytes::new(), true).expect("the end");
        let response = deadline("an HTTP/2 answer", response).await;
        whole(response.expect("an answer")).await
    }

    /// POSTs `body` with its length, as browsers do, and reads the whole answer.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Response<Vec<u8>> {
        self.try_post(path, body).await.expect("an answer")
    }

    /// As [`H2::post`]; returns the error of a stream that was reset before its answer.
    pub async fn try_post(
        &mut self,
        path: &str,
        body: &[u8],
    ) -> Result<Response<Vec<u8>>, h2::Error> {
        let url = format!("{}://{}{path}", self.scheme, self.host);
        let request = Request::post(url).header("content-length", body.len());
        let request = request.body(()).expect("a legal request");
        self.send = self.send.clone().ready().await.expect("a live connection");
        let (response, mut sent) = self.send.send_request(request, false).expect("a request");
        sent.send_data(Bytes::copy_from_slice(body), true)
            .expect("DATA");
        Ok(whole(deadline("an HTTP/2 answer", response).await?).await)
    }

    /// GETs `path` and reads the whole answer; panics if the stream is reset.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response<Vec<u8>> {
        whole(self.open(path, headers).await.expect("an answer")).await
    }
}

async fn whole(answer: Response<RecvStream>) -> Response<Vec<u8>> {
    let (parts, mut body) = answer.into_parts();
    let mut whole = Vec::new();
    while let Some(piece) = piece(&mut body).await {
        whole.extend_from_slice(&piece.expect("a piece of a body"));
    }
    Response::from_parts(parts, whole)
}

/// The next DATA of a body; reopens the window by its length. `None` at the end.
pub async fn piece(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let piece = deadline("DATA", body.data()).await?;
    if let Ok(piece) = &piece {
        body.flow_control()
            .release_capacity(piece.len())
            .expect("a window as large as what arrived");
    }
    Some(piece)
}
