//! The running admin endpoint: its socket and its task.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::task::JoinHandle;

/// A running admin endpoint; dropping it closes the socket.
pub struct Endpoint {
    /// The address given in the configuration.
    pub asked: SocketAddr,
    socket: TcpListener,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Makes the endpoint from its socket and the task that serves it.
    pub fn new(asked: SocketAddr, socket: TcpListener, task: JoinHandle<()>) -> Self {
        Endpoint {
            asked,
            socket,
            task,
        }
    }

    /// Returns another handle of the listening socket.
    pub fn socket(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}
