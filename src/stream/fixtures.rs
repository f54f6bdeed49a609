//! Real sockets for tests of the code between them.

use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslMode, SslVersion};
use tokio::net::{TcpSocket, TcpStream};
use tokio_openssl::SslStream;

use super::kernel;
use super::side::Side;
use super::socket::{Options, Tcp, receive_buffer, tune};

/// Awaits `event` for at most ten seconds; panics with `what`.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), event)
        .await
        .expect(what)
}

/// Segments that the kernel received on `socket`.
pub fn segments(socket: &TcpStream) -> u32 {
    kernel::info(socket.as_raw_fd()).expect("facts").segments
}

/// A peer's socket, and a relay's socket connected to it whose receive buffer was set to `receive_buffer`.
pub async fn pair_with(receive_buffer: usize) -> (TcpStream, Side) {
    // Set on the listener: TCP does not take a window back, so it must be small from the start.
    let listener = TcpSocket::new_v4().unwrap();
    let bytes = u32::try_from(receive_buffer).unwrap();
    listener.set_recv_buffer_size(bytes).unwrap();
    listener.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = listener.listen(1).unwrap();
    let outer = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (inner, _) = listener.accept().await.unwrap();
    let minute = Duration::from_secs(60);
    let options = Options {
        keepalive: minute,
        receive_buffer: Some(receive_buffer),
        bulk: false,
        source: None,
    };
    tune(&inner, &options).unwrap();
    (outer, Side::Plain(Tcp::new(inner)))
}

/// [`pair_with`] the receive buffer of the default `max_hidden`.
pub async fn pair() -> (TcpStream, Side) {
    pair_with(receive_buffer(32 << 10)).await
}

/// As [`pair`], under TLS without certificates.
pub async fn tls_pair() -> (SslStream<TcpStream>, Side) {
    let mut builder = SslContext::builder(SslMethod::tls()).unwrap();
    builder.set_mode(SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
    builder.set_cipher_list("aNULL:@SECLEVEL=0").unwrap();
    builder
        .set_max_proto_version(Some(SslVersion::TLS1_2))
        .unwrap();
    let context = builder.build();
    let (outer, inner) = pair().await;
    let Side::Plain(inner) = inner else {
        unreachable!("it is plain");
    };
    let mut outer = SslStream::new(Ssl::new(&context).unwrap(), outer).unwrap();
    let mut inner = SslStream::new(Ssl::new(&context).unwrap(), inner).unwrap();
    let (client, server) = tokio::join!(
        Pin::new(&mut outer).connect(),
        Pin::new(&mut inner).accept()
    );
    client.and(server).unwrap();
    (outer, Side::Tls(Box::new(inner)))
}
