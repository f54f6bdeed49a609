//! Decides which thread accepts next from a listening socket that several threads share.
//!
//! In: the socket. Out: a descriptor for each thread. It is readable when that thread has the turn and a
//! client waits. Each descriptor is an epoll instance that holds the socket; at most one of them is armed.
//! Passing the turn is one system call. It wakes the next thread at once if a client waits; otherwise the next
//! client wakes it.
//! Rejected designs: one wait queue for all threads, because each client wakes every thread. One socket for each
//! thread, because closing it loses the clients in its queue (docs/decisions/0018-accept-on-data-threads.md).
//! Source: epoll(7), epoll_ctl(2) on EPOLLONESHOT.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{Timespec, epoll};

/// A listening socket and the turns of the threads that accept from it.
pub struct AcceptTurns {
    socket: TcpListener,
    /// One epoll instance for each thread. Empty where there is one thread, because it always has the turn.
    gates: Vec<OwnedFd>,
}

/// The descriptor that one thread waits on: its gate, or the socket itself where there is one thread.
pub struct AcceptTurn {
    turns: Arc<AcceptTurns>,
    at: usize,
}

/// A shut gate: the kernel then reports errors only, and a listening socket has none.
const SHUT: epoll::EventFlags = epoll::EventFlags::ONESHOT;
/// An armed gate: it reports one client, then it is shut.
const OPEN: epoll::EventFlags = SHUT.union(epoll::EventFlags::IN);

impl AcceptTurns {
    /// Makes the turns of `threads` threads. The first thread has the turn.
    ///
    /// Errors: no descriptor, memory or place in epoll's watches is left. Two or more threads need one descriptor each.
    pub fn for_threads(socket: TcpListener, threads: usize) -> io::Result<Vec<AcceptTurn>> {
        let gates = if threads > 1 { threads } else { 0 };
        let gate = |at| {
            let gate = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let events = if at == 0 { OPEN } else { SHUT };
            epoll::add(&gate, &socket, epoll::EventData::new_u64(0), events)?;
            Ok(gate)
        };
        let gates = (0..gates).map(gate).collect::<io::Result<Vec<_>>>()?;
        let turns = Arc::new(AcceptTurns { socket, gates });
        let turn = |at| AcceptTurn {
            turns: turns.clone(),
            at,
        };
        Ok((0..threads).map(turn).collect())
    }
}

impl AcceptTurn {
    /// The listening socket.
    pub fn socket(&self) -> &TcpListener {
        &self.turns.socket
    }

    /// Whether other threads accept from the socket as well.
    pub fn is_shared(&self) -> bool {
        !self.turns.gates.is_empty()
    }

    /// Takes the turn. Where several threads share the socket: false if another thread has it, this one has taken it
    /// already, or no client waits. A thread that took it must [`AcceptTurn::pass`] it on, or no thread accepts any
    /// more. Where there is one thread: always true, also if no client waits, and nothing must be passed on.
    pub fn take(&self) -> bool {
        let Some(gate) = self.turns.gates.get(self.at) else {
            return true;
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // The report shuts the gate and takes the socket off its ready list. While the socket is on that
        // list, arming the gate wakes no thread.
        let mut report = [epoll::Event {
            flags: SHUT,
            data: epoll::EventData::new_u64(0),
        }];
        matches!(epoll::wait(gate, &mut report, Some(&now)), Ok(1))
    }

    /// Passes the turn to the thread `to`, one of those that the turns were made for. The kernel wakes that thread at
    /// once if a client waits, otherwise when one arrives.
    ///
    /// Errors: the kernel has no memory. The caller still has the turn.
    pub fn pass(&self, to: usize) -> io::Result<()> {
        let Some(gate) = self.turns.gates.get(to) else {
            return Ok(());
        };
        let data = epoll::EventData::new_u64(0);
        Ok(epoll::modify(gate, &self.turns.socket, data, OPEN)?)
    }
}

impl AsRawFd for AcceptTurn {
    fn as_raw_fd(&self) -> RawFd {
        let gate = self.turns.gates.get(self.at);
        gate.map_or_else(|| self.turns.socket.as_raw_fd(), AsRawFd::as_raw_fd)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::stream::kernel;

    fn accept_turns(threads: usize) -> (Vec<AcceptTurn>, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.set_nonblocking(true).expect("a socket");
        let address = socket.local_addr().expect("bound");
        (
            AcceptTurns::for_threads(socket, threads).expect("gates"),
            address,
        )
    }

    /// Aim: one thread at a time has the turn. Fails if a gate is armed that should be shut, or if a turn can
    /// be taken twice.
    #[test]
    fn one_thread_has_the_turn() {
        let (turns, address) = accept_turns(3);
        assert!(!turns.iter().any(AcceptTurn::take), "no client waits");
        let _client = TcpStream::connect(address).expect("connect");
        assert!(!turns[1].take() && !turns[2].take(), "the first is first");
        assert!(turns[0].take());
        assert!(!turns.iter().any(AcceptTurn::take), "it is taken");
        turns[0].pass(2).expect("memory");
        assert!(!turns[0].take() && !turns[1].take());
        assert!(turns[2].take(), "the client waits still");
    }

    /// Aim: a turn wakes its thread if a client waits already. Fails if [`AcceptTurn::take`] leaves the
    /// socket on the gate's ready list, e.g. without EPOLLONESHOT: then the kernel wakes no thread.
    #[tokio::test]
    async fn a_turn_with_a_client_wakes() {
        let (mut turns, address) = accept_turns(2);
        let other = turns.pop().expect("two");
        let gate = kernel::watch_readable(turns.remove(0)).expect("a runtime");
        let _client = TcpStream::connect(address).expect("connect");
        for _ in 0..3 {
            let woken = tokio::time::timeout(Duration::from_secs(10), gate.readable());
            let mut woken = woken.await.expect("woken").expect("a gate");
            woken.clear_ready();
            assert!(gate.get_ref().take());
            gate.get_ref().pass(1).expect("memory");
            assert!(other.take(), "the client waits still");
            other.pass(0).expect("memory");
        }
    }

    /// Aim: a single thread waits on the socket itself. Fails if it gets gates, which it does not need.
    #[test]
    fn one_thread_waits_for_the_socket() {
        let (turns, _) = accept_turns(1);
        assert!(!turns[0].is_shared() && turns[0].take() && turns[0].take());
        assert_eq!(turns[0].as_raw_fd(), turns[0].socket().as_raw_fd());
        turns[0].pass(0).expect("nothing to do");
    }
}
