//! A way to leave, what the node does meanwhile, and the layer; with the node and the clients that do it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::client::kernel;
use crate::deadline;
use crate::netns::Host;

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// FIN, then reset.
    FinReset,
    /// FIN, then its network drops everything.
    FinVanish,
    /// `close()`.
    Close,
    /// Reset.
    Reset,
    /// Its network drops everything.
    Vanish,
    /// The same, while it does not read what its node sends.
    StalledVanish,
    /// Not at all: it sends FIN and reads on.
    HalfClose,
}

/// What the node does while its client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Does {
    /// Reads, and sends nothing.
    Silent,
    /// Reads, and sends.
    Busy,
    /// Neither reads nor sends.
    Stopped,
    /// Sends, and does not read.
    Deaf,
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    Four,
    WebSocket,
    Upload,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub way: Way,
    pub does: Does,
    pub layer: Layer,
}

/// Bytes that are on their way to a node that reads.
const FEW: usize = 1024;
/// Bytes of a client's write while it fills the way to a node that does not read.
const PIECE: usize = 4096;
/// Receive buffer of peers that do not read, in bytes.
const SMALL: usize = 4096;

impl Case {
    /// Returns every row. A client that keeps its flow can do so at layer 4 only.
    pub fn all() -> Vec<Case> {
        use Way::{Close, FinReset, FinVanish, HalfClose, Reset, StalledVanish, Vanish};
        let mut all = Vec::new();
        for way in [FinReset, FinVanish, Close, Reset, Vanish, StalledVanish] {
            for does in [Does::Silent, Does::Busy, Does::Stopped] {
                for layer in [Layer::Four, Layer::WebSocket, Layer::Upload] {
                    all.push(Case { way, does, layer });
                }
            }
        }
        all.extend([Does::Silent, Does::Busy, Does::Deaf].map(|does| Case {
            way: HalfClose,
            does,
            layer: Layer::Four,
        }));
        all
    }

    /// Whether the client's network fails.
    pub fn is_cut(self) -> bool {
        use Way::{FinVanish, StalledVanish, Vanish};
        matches!(self.way, FinVanish | Vanish | StalledVanish)
    }

    fn reads(self) -> bool {
        matches!(self.does, Does::Silent | Does::Busy)
    }

    /// Starts its node, which never closes a connection before `finish`. Returns the node's port.
    pub async fn node(self, finish: &Arc<Notify>) -> u16 {
        let socket = TcpSocket::new_v4().expect("a socket");
        let small = socket.set_recv_buffer_size(SMALL as u32);
        small.expect("SO_RCVBUF");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(4096).expect("listen");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(self.accept(listener, finish.clone()));
        port
    }

    async fn accept(self, listener: TcpListener, finish: Arc<Notify>) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.serve(stream, finish.clone()));
        }
    }

    async fn serve(self, mut stream: TcpStream, finish: Arc<Notify>) {
        head(&mut stream).await;
        let sends = self.way == Way::StalledVanish || matches!(self.does, Does::Busy | Does::Deaf);
        let answer: &[u8] = match self.layer {
            Layer::WebSocket => {
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            }
            Layer::Upload if sends => b"HTTP/1.1 200 OK\r\n\r\n",
            Layer::Upload | Layer::Four => b"",
        };
        stream.write_all(answer).await.expect("send");
        let (mut read, mut write) = stream.into_split();
        let reading = async {
            let mut piece = vec![0; 4096];
            while self.reads() && read.read(&mut piece).await.is_ok_and(|n| n > 0) {}
        };
        // Zeros are empty frames of a WebSocket.
        let sending = async {
            let flood = self.way == Way::StalledVanish;
            let piece = vec![0; if flood { 4096 } else { 2 }];
            while sends && write.write_all(&piece).await.is_ok() {
                if !flood {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(reading, sending) } => {}
            () = finish.notified() => {}
        }
        // Whoever is left gets its answer.
        let mut rest = Vec::new();
        if read.read_to_end(&mut rest).await.is_ok() {
            let _ = write.write_all(b"bye").await;
        }
    }

    /// Connects a client from `host` and brings it to the point at which it leaves.
    pub async fn client(self, host: &Host, port: u16) -> TcpStream {
        let receive = (self.way == Way::StalledVanish).then_some(SMALL);
        let to = (host.here, port).into();
        let mut stream = host.connect(to, receive);
        let request: &[u8] = match self.layer {
            Layer::Four => b"HELLO\r\n\r\n",
            Layer::WebSocket => {
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            }
            Layer::Upload => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n",
        };
        stream.write_all(request).await.expect("send");
        if self.layer == Layer::WebSocket {
            deadline("a 101", head(&mut stream)).await;
        }
        match self.reads() {
            true => stream.write_all(&[0; FEW]).await.expect("send"),
            false => fill(&mut stream).await,
        }
        if self.way == Way::StalledVanish {
            deadline("a flood", stalled(&stream)).await;
        }
        deadline("the edge to have it", acknowledged(&stream)).await;
        stream
    }

    /// Sends FIN if the client leaves with one.
    pub async fn finish(self, client: &mut TcpStream) {
        if matches!(self.way, Way::FinReset | Way::FinVanish | Way::HalfClose) {
            client.shutdown().await.expect("FIN");
            // HTTP ends with FIN, and a reset may be the answer.
            let taken = async {
                tokio::select! {
                    () = acknowledged(client) => {}
                    _ = client.ready(Interest::ERROR) => {}
                }
            };
            deadline("the edge to have FIN", taken).await;
        }
    }

    /// Makes a client leave, unless its network does.
    pub fn leave(self, client: TcpStream) {
        if matches!(self.way, Way::FinReset | Way::Reset) {
            client.set_zero_linger().expect("a socket");
        }
    }
}

/// Reads a head and no byte behind it.
async fn head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
}

/// Sends until the node, which does not read, has stopped the edge from reading. The FIN still finds room.
async fn fill(stream: &mut TcpStream) {
    let to = stream.peer_addr().expect("connected");
    let from = stream.local_addr().expect("connected");
    let mut waits = 0;
    while waits < 10 {
        match kernel::unread(to, from) {
            Some(0) => {
                stream.write_all(&[0; PIECE]).await.expect("send");
                waits = 0;
            }
            _ => waits += 1,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the node has stopped sending to a client that does not read.
async fn stalled(client: &TcpStream) {
    let (mut last, mut same) = (0, 0);
    while same < 10 {
        let now = ioctl(client, libc::FIONREAD);
        same = if now > 0 && now == last { same + 1 } else { 0 };
        last = now;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the edge's kernel has every byte, and the FIN.
async fn acknowledged(client: &TcpStream) {
    while ioctl(client, libc::TIOCOUTQ) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ioctl(socket: &TcpStream, request: libc::Ioctl) -> i32 {
    let mut n = 0;
    // SAFETY: both requests write one int.
    let rc = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(socket), request, &mut n) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    n
}
