//! Real sockets for tests of what stands between two of them.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::side::Side;
use super::socket::{Options, Tcp, tune};

/// An outer socket, and the one a relay has of it, with so large a receive buffer.
pub async fn pair_with(receive_buffer: usize) -> (TcpStream, Side) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
    pair_with(4096).await
}
