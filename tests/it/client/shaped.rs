//! A client that sends its first bytes joined, cut into pieces, or in other TLS records.
//!
//! In: a TCP connection, a change of the first flight, lengths of pieces. Out: a stream for any client on
//! top. A piece leaves when the edge has read the one before, so no kernel joins them. Source: FAULTS D31,
//! D38–D40.

use std::net::SocketAddr;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use super::kernel::unread;
use crate::deadline;

/// Longest first flight; a ClientHello of 16 KiB with a PROXY header fits.
const FLIGHT: usize = 64 * 1024;
/// How many pieces wait for the one before; after that, one in [`GROUP`] does.
const SINGLE: usize = 64;
const GROUP: usize = 16;

/// Passes the client's first flight through `change` and cuts it at `cuts` (positions in the changed bytes).
/// Everything after it passes unchanged.
pub fn shaped(
    tcp: TcpStream,
    change: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static,
    cuts: Vec<usize>,
) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(FLIGHT);
    tokio::spawn(async move {
        let mut tcp = tcp;
        let mut first = vec![0; FLIGHT];
        let n = far.read(&mut first).await.unwrap_or_default();
        first.truncate(n);
        if pieces(&mut tcp, &change(first), &cuts).await.is_ok() {
            let _ = tokio::io::copy_bidirectional(&mut far, &mut tcp).await;
        }
    });
    near
}

/// The ClientHello that OpenSSL sends for `name`.
pub fn client_hello(name: &str) -> Vec<u8> {
    struct Sink(Vec<u8>);
    impl std::io::Read for Sink {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
    }
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let context = SslContext::builder(SslMethod::tls_client()).expect("a context");
    let mut ssl = Ssl::new(&context.build()).expect("a connection");
    ssl.set_hostname(name).expect("a name");
    let mut stream = SslStream::new(ssl, Sink(Vec::new())).expect("a stream");
    // The handshake stops where the server's answer is missing.
    let _ = stream.connect();
    stream.get_ref().0.clone()
}

/// Sends `bytes` cut at `cuts`. Each of the first pieces waits until the one before was read. Later pieces go
/// in small groups, because each wait costs a turn of both programs on a machine that may be busy.
pub async fn pieces(tcp: &mut TcpStream, bytes: &[u8], cuts: &[usize]) -> std::io::Result<()> {
    let mut from = 0;
    for (n, cut) in cuts.iter().copied().enumerate() {
        if cut >= bytes.len() {
            break;
        }
        tcp.write_all(&bytes[from..cut]).await?;
        if n < SINGLE || n % GROUP == 0 {
            all_read(tcp.local_addr()?, tcp.peer_addr()?).await;
        }
        from = cut;
    }
    tcp.write_all(&bytes[from..]).await
}

/// Every position, so that each piece is one byte.
pub fn each(bytes: usize) -> Vec<usize> {
    (1..bytes).collect()
}

/// Waits until the socket at `to` has read every byte from `from`, or is gone. Polls every millisecond.
async fn all_read(from: SocketAddr, to: SocketAddr) {
    deadline("the edge to read a piece", async {
        while unread(to, from).is_some_and(|bytes| bytes > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}
