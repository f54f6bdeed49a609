//! Connects to Unix sockets, and accepts from them where the runtime's own types would refuse the peer's address.
//!
//! In: the name of a socket. Out: a stream that is used as one of TCP: reads, writes and shutdowns are the same
//! calls, and what only TCP has ([`super::kernel::info`]) reports nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use pushgate_plugins::unix;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// Connects to the socket called `name`. The kernel answers at once: connected, refused, or its queue is full.
///
/// Errors: those of connect(2).
pub fn connect(name: &str) -> io::Result<TcpStream> {
    let to = match name.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}"))?,
        None => SockAddr::unix(name)?,
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&to)?;
    as_tcp(OwnedFd::from(socket).into())
}

fn as_tcp(stream: UnixStream) -> io::Result<TcpStream> {
    TcpStream::from_std(OwnedFd::from(stream).into())
}

/// A listening socket of either kind.
pub enum Listening {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of this machine.
    Unix(UnixListener),
}

impl Listening {
    /// Registers `socket`, bound to `asked`, with the runtime of this thread.
    ///
    /// Errors: no descriptor is left.
    pub fn new(asked: SocketAddr, socket: std::net::TcpListener) -> io::Result<Self> {
        match unix::is_unix(asked.ip()) {
            false => TcpListener::from_std(socket).map(Listening::Tcp),
            true => UnixListener::from_std(OwnedFd::from(socket).into()).map(Listening::Unix),
        }
    }

    /// Accepts one client, with its address.
    ///
    /// Errors: those of accept(2).
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Listening::Tcp(socket) => socket.accept().await,
            Listening::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((as_tcp(stream.into_std()?)?, unix::CLIENT))
            }
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listening::Tcp(socket) => socket.as_fd(),
            Listening::Unix(socket) => socket.as_fd(),
        }
    }
}
