//! The running admin endpoint: its socket and its task.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use pushgate_plugins::unix::name_of;
use tokio::task::JoinHandle;

use crate::listener::unix::SocketFile;

/// A running admin endpoint; dropping it closes the socket.
pub struct Endpoint {
    /// The address given in the configuration.
    pub asked: SocketAddr,
    socket: TcpListener,
    task: JoinHandle<()>,
    /// Its file, if it is a Unix socket.
    _file: Option<Arc<SocketFile>>,
}

impl Endpoint {
    /// Makes the endpoint from its socket and the task that serves it.
    pub fn new(asked: SocketAddr, socket: TcpListener, task: JoinHandle<()>) -> Self {
        Endpoint {
            asked,
            socket,
            task,
            _file: name_of(asked).map(SocketFile::of),
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
