//! Real sockets for tests of what stands between two of them.

use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::side::Side;
use super::socket::{Options, Tcp, receive_buffer, tune};

/// An outer socket, and the one a relay has of it, with so large a receive buffer.
pub async fn pair_with(receive_buffer: usize) -> (TcpStream, Side) {
    // On the listener: a window once told is not taken back, so that it must be small from the first.
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
    };
    tune(&inner, &options).unwrap();
    (outer, Side::Plain(Tcp::new(inner)))
}

/// [`pair_with`] the receive buffer of the default `max_hidden`.
pub async fn pair() -> (TcpStream, Side) {
    pair_with(receive_buffer(32 << 10)).await
}
