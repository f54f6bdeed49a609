//! Sends datagrams to a log server that may go away and come back.
//!
//! In: how to open a socket, how to send by it. Out: datagrams, each tried twice.

use std::io;

/// The socket to a server, if the last datagram was sent.
#[derive(Debug)]
pub struct Datagrams<S>(Option<S>);

impl<S> Default for Datagrams<S> {
    fn default() -> Self {
        Datagrams(None)
    }
}

impl<S> Datagrams<S> {
    /// Sends a datagram by `send`. A server that was restarted has another socket, so after a failure it is opened again
    /// and tried once more.
    ///
    /// Errors: those of the second try.
    pub fn send(
        &mut self,
        open: impl Fn() -> io::Result<S>,
        send: impl Fn(&S) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.try_once(&open, &send)
            .or_else(|_| self.try_once(&open, &send))
    }

    fn try_once(
        &mut self,
        open: impl Fn() -> io::Result<S>,
        send: impl Fn(&S) -> io::Result<usize>,
    ) -> io::Result<()> {
        let socket = self.0.take().map_or_else(open, Ok)?;
        send(&socket)?;
        // Kept only if it works.
        self.0 = Some(socket);
        Ok(())
    }
}
