//! An HTTP/1.1 client on one persistent connection: whole answers, or a stream piece by piece.
//!
//! In: requests. Out: heads, and the body's bytes as they arrive, un-framed. Source: RFC 9112 §6, §7.1.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Dial, Io};
use crate::deadline;

/// One persistent connection.
pub struct H1 {
    /// The stream, for bytes that this client has no method for.
    pub io: Box<dyn Io>,
    host: String,
    unread: Vec<u8>,
    body: Framing,
}

/// A response's head, and its body if it was read.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, un-framed.
    pub body: Vec<u8>,
}

impl Response {
    /// First value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Name of the node that answered.
    pub fn node(&self) -> &str {
        self.header("x-node").unwrap_or("(no node)")
    }

    /// `NAME=VALUE` of each `Set-Cookie`.
    pub fn cookies(&self) -> Vec<&str> {
        let set = self.headers.iter().filter(|(key, _)| key == "set-cookie");
        set.map(|(_, v)| v.split(';').next().unwrap_or_default())
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Done,
    Length(usize),
    /// Between chunks.
    Chunked,
    /// Inside a chunk, with this many bytes left.
    Chunk(usize),
    Close,
}

impl H1 {
    /// Connects.
    pub async fn connect(dial: &Dial) -> H1 {
        H1 {
            io: dial.io().await,
            host: dial.host.clone(),
            unread: Vec::new(),
            body: Framing::Done,
        }
    }

    /// Uses a stream that is already connected.
    pub fn over(io: Box<dyn Io>) -> H1 {
        H1 {
            io,
            host: String::new(),
            unread: Vec::new(),
            body: Framing::Done,
        }
    }

    /// Reads the head of an answer to HEAD: no body follows, whatever the head says.
    pub async fn bare_head(&mut self) -> io::Result<Response> {
        let head = self.head().await;
        self.body = Framing::Done;
        head
    }

    /// Opens a stream of demo events, one every 10 ms.
    pub async fn stream(dial: &Dial) -> H1 {
        let mut client = H1::connect(dial).await;
        let path = "/sse?every=10";
        client.send("GET", path, &[], b"").await.expect("send");
        assert_eq!(client.head().await.expect("a head").status, 200);
        client
    }

    /// Reads on; fails if the stream was cut or is over within the next `pieces`.
    pub async fn lives(&mut self, pieces: usize) {
        for _ in 0..pieces {
            let piece = deadline("a piece", self.piece()).await;
            assert!(piece.expect("not cut").is_some(), "not at its end");
        }
    }

    /// GETs `path` and reads the whole answer.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers, b"").await
    }

    /// Sends a request and reads the whole answer; panics if the connection ends before.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(method, path, headers, body)
            .await
            .expect("send a request");
        let mut response = self.head().await.expect("the head of an answer");
        if method != "HEAD" {
            response.body = self.rest().await.expect("the body of an answer");
        }
        response
    }

    /// Sends a request and reads nothing.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(key, _)| key.eq_ignore_ascii_case("host"))
        {
            head += &format!("Host: {}\r\n", self.host);
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (key, value) in headers {
            head += &format!("{key}: {value}\r\n");
        }
        self.raw(&[head.as_bytes(), b"\r\n", body].concat()).await
    }

    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Reads the head of an answer and skips interim answers except 101. The body stays empty.
    pub async fn head(&mut self) -> io::Result<Response> {
        loop {
            let end = loop {
                match memchr::memmem::find(&self.unread, b"\r\n\r\n") {
                    Some(end) => break end + 4,
                    None => self.more().await?,
                }
            };
            let head: Vec<u8> = self.unread.drain(..end).collect();
            let response = parse(&head)?;
            if response.status == 101 || response.status >= 200 {
                self.body = framing(&response);
                return Ok(response);
            }
        }
    }

    /// The next bytes of the body as they arrive; `None` at its end.
    pub async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.body {
                Framing::Done | Framing::Length(0) => {
                    self.body = Framing::Done;
                    return Ok(None);
                }
                Framing::Chunked => {
                    if self.chunk_line().await? == 0 {
                        self.body = Framing::Done;
                        return Ok(None);
                    }
                }
                Framing::Close if self.unread.is_empty() => {
                    if self.more().await.is_err() {
                        self.body = Framing::Done;
                        return Ok(None);
                    }
                }
                Framing::Close => return Ok(Some(std::mem::take(&mut self.unread))),
                Framing::Length(left) | Framing::Chunk(left) => {
                    return self.part(left).await.map(Some);
                }
            }
        }
    }

    /// The rest of the body.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend(piece);
        }
        Ok(body)
    }

    /// Reads and drops bytes until the connection ends; true for FIN, false for reset.
    pub async fn ended(&mut self) -> bool {
        let mut scrap = [0; 4096];
        let end = async {
            loop {
                match self.io.read(&mut scrap).await {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        deadline("the end of a connection", end).await
    }

    /// Up to `left` bytes of the current chunk or length.
    async fn part(&mut self, left: usize) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() {
            self.more().await?;
        }
        let taken = left.min(self.unread.len());
        let part = self.unread.drain(..taken).collect();
        self.body = match self.body {
            Framing::Length(_) => Framing::Length(left - taken),
            _ if left > taken => Framing::Chunk(left - taken),
            _ => {
                self.line().await?;
                Framing::Chunked
            }
        };
        Ok(part)
    }

    async fn chunk_line(&mut self) -> io::Result<usize> {
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| bad("chunk size"))?;
        match size {
            // Trailers, then the empty line.
            0 => while !self.line().await?.is_empty() {},
            size => self.body = Framing::Chunk(size),
        }
        Ok(size)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match deadline("bytes of an answer", self.io.read_buf(&mut self.unread)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn parse(head: &[u8]) -> io::Result<Response> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(head).map_err(|_| bad("head"))?;
    let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
    let headers = parsed
        .headers
        .iter()
        .map(|h| (h.name.to_ascii_lowercase(), text(h.value)));
    Ok(Response {
        status: parsed.code.unwrap_or_default(),
        headers: headers.collect(),
        body: Vec::new(),
    })
}

fn framing(response: &Response) -> Framing {
    if matches!(response.status, 101 | 204 | 304) {
        return Framing::Done;
    }
    if response.header("transfer-encoding").is_some() {
        return Framing::Chunked;
    }
    let length = response
        .header("content-length")
        .and_then(|v| v.parse().ok());
    length.map_or(Framing::Close, Framing::Length)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad {what}"))
}
