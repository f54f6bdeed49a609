//! One socket of a node: reads with a buffer, writes as requested, and notices the end.
//!
//! In: a `TcpStream`, plain or with TLS. Out: reads on demand, whole writes, and [`Conn::pause`], which waits
//! and still notices when the other side closes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::SslContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Shared;
use super::stream::Stream;

/// One connection of a node.
pub struct Conn {
    /// State that all connections of the node share.
    pub shared: Arc<Shared>,
    /// Index in [`super::Seen::connections`].
    pub id: usize,
    /// The socket, with TLS on top if its port has a certificate.
    pub stream: Stream,
    /// Bytes read and not yet taken.
    pub unread: Vec<u8>,
    /// `Origin` of the current request, for CORS.
    pub origin: Option<String>,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, tls: Option<&SslContext>, shared: Arc<Shared>) -> Conn {
        // Each write is a message; coalescing would hide what the edge does with it.
        let _ = stream.set_nodelay(true);
        Conn {
            shared,
            id: 0,
            stream: Stream::new(stream, tls),
            unread: Vec::new(),
            origin: None,
        }
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Sends one chunk of a chunked body.
    pub async fn chunk(&mut self, data: impl AsRef<[u8]>) -> io::Result<()> {
        let data = data.as_ref();
        let mut out = format!("{:x}\r\n", data.len()).into_bytes();
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
        self.send(out).await
    }

    /// Waits for `time`; fails as soon as the other side ends the connection.
    pub async fn pause(&mut self, time: Duration) -> io::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            end = self.ended() => Err(end),
        }
    }

    /// Waits until the other side ends the connection.
    pub async fn ended(&mut self) -> io::Error {
        loop {
            match self.more().await {
                Ok(true) => {}
                Ok(false) => return io::ErrorKind::UnexpectedEof.into(),
                Err(e) => return e,
            }
        }
    }

    /// Makes a drop of the socket send a reset.
    pub fn reset_on_drop(&self) {
        let _ = socket2::SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Reads until the unread bytes contain `needle`; returns its position, or `None` at a clean end.
    pub(super) async fn find(&mut self, needle: &[u8], limit: usize) -> io::Result<Option<usize>> {
        let mut from = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread[from..], needle) {
                return Ok(Some(from + at));
            }
            if self.unread.len() > limit {
                return Err(invalid("a head or line beyond the node's limit"));
            }
            from = self.unread.len().saturating_sub(needle.len());
            if !self.more().await? {
                return match self.unread.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Reads until `length` bytes are unread.
    pub(super) async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.unread.len() < length {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Removes and returns the first `length` unread bytes.
    pub(super) fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.unread.split_off(length);
        std::mem::replace(&mut self.unread, rest)
    }

    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }
}

/// Builds an error about bytes that break the protocol.
pub fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
