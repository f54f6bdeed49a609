//! Reads one HTTP/1.1 request from a socket and keeps its head byte for byte.
//!
//! In: a [`Conn`]. Out: a [`Request`] with its body. Source: RFC 9112 §3, §6, §7.1.

use std::io;
use std::time::Duration;

use super::conn::{Conn, invalid};

/// One request with its body.
#[derive(Clone, Debug)]
pub struct Request {
    /// Start line and headers as they arrived.
    pub head: Vec<u8>,
    /// Method.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Whether the connection ends after the answer.
    pub close: bool,
    /// Headers in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the next request; `None` at a clean end of the connection.
    pub async fn read(conn: &mut Conn) -> io::Result<Option<Request>> {
        let Some(end) = conn.find(b"\r\n\r\n", MAX_HEAD).await? else {
            return Ok(None);
        };
        let head = conn.take(end + 4);
        let mut request = parse(head)?;
        if request.header("expect").is_some() {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if request.header("upgrade").is_none() {
            request.body = read_body(conn, &request).await?;
        }
        Ok(Some(request))
    }

    /// First value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// The path without query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        self.target
            .split_once('?')
            .and_then(|(_, q)| param(q, name))
    }

    /// A number of the query, or `default`.
    pub fn number(&self, name: &str, default: u64) -> u64 {
        self.query(name)
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    }

    /// A time of the query in milliseconds, or `default` milliseconds.
    pub fn millis(&self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, default))
    }
}

/// One parameter of a form or query, decoded.
pub fn param(form: &str, name: &str) -> Option<String> {
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| decode(value))
}

fn decode(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parse(head: Vec<u8>) -> io::Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(|e| invalid(e.to_string()))?;
    let text = |v: Option<&str>| v.unwrap_or_default().to_owned();
    let (method, target) = (text(parsed.method), text(parsed.path));
    let headers: Vec<_> = parsed
        .headers
        .iter()
        .map(|h| {
            (
                h.name.to_ascii_lowercase(),
                String::from_utf8_lossy(h.value).into_owned(),
            )
        })
        .collect();
    let connection = headers.iter().find(|(key, _)| key == "connection");
    let asked = connection.map(|(_, value)| value.to_ascii_lowercase());
    let close = match parsed.version {
        Some(0) => !asked.is_some_and(|v| v.contains("keep-alive")),
        _ => asked.is_some_and(|v| v.contains("close")),
    };
    Ok(Request {
        head,
        method,
        target,
        close,
        headers,
        body: Vec::new(),
    })
}

async fn read_body(conn: &mut Conn, request: &Request) -> io::Result<Vec<u8>> {
    if request.header("transfer-encoding").is_some() {
        return read_chunks(conn).await;
    }
    match request.header("content-length") {
        Some(length) => {
            let length = length.parse().map_err(|_| invalid("content-length"))?;
            conn.fill(length).await?;
            Ok(conn.take(length))
        }
        None => Ok(Vec::new()),
    }
}

async fn read_chunks(conn: &mut Conn) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = conn
            .find(b"\r\n", MAX_LINE)
            .await?
            .ok_or_else(|| invalid("chunk"))?;
        let line = conn.take(end + 2);
        let size = String::from_utf8_lossy(&line);
        let size = size.split([';', '\r']).next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
        if size == 0 {
            skip_trailers(conn).await?;
            return Ok(body);
        }
        conn.fill(size + 2).await?;
        let chunk = conn.take(size + 2);
        body.extend_from_slice(&chunk[..size]);
    }
}

/// Reads the lines after the last chunk, up to the empty one.
async fn skip_trailers(conn: &mut Conn) -> io::Result<()> {
    loop {
        let end = conn.find(b"\r\n", MAX_LINE).await?;
        let end = end.ok_or_else(|| invalid("trailers"))?;
        conn.take(end + 2);
        if end == 0 {
            return Ok(());
        }
    }
}

/// Above every limit of the edge, so that the edge refuses, not the node.
const MAX_HEAD: usize = 4 << 20;
const MAX_LINE: usize = 64 << 10;
