//! Parts from the clients of flows that are ended: all of a thread's clients are told first, what is left
//! to do for each flow (closing two sockets, counting, the access line) follows in turns.
//!
//! In: a reaper that tells, and flows whose client was told. Out: each flow's turn, after the last client.
//! Telling a client costs the kernel some 14 µs, the rest of a flow's end three times that: in between,
//! the last of 9,000 clients waited for what the others did not need (benches/README.md).
//! Source: Diffusion load balancers, "TCP retransmission timeout".

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::frames::RESTART;
use super::side::Side;

thread_local! {
    static TELLING: Cell<bool> = const { Cell::new(false) };
    /// One permit is one turn. It has none but those that [`Telling::let_go`] gives.
    static TURNS: Arc<Semaphore> = Arc::new(Semaphore::new(0));
}

/// While it lives, flows of this thread that are ended wait for their turn. Its holder gives all of them
/// one before it drops it, or ends with its thread and all that waits there.
pub struct Telling(());

impl Telling {
    /// Begins to tell.
    pub fn begin() -> Self {
        TELLING.set(true);
        Telling(())
    }

    /// Gives up to `flows` of those that wait their turn, the first ones first; false if no more wait.
    pub fn let_go(&self, flows: usize) -> bool {
        TURNS.with(|turns| {
            turns.add_permits(flows);
            turns.forget_permits(flows) == 0
        })
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.set(false);
    }
}

/// Waits for the turn of a flow whose client was told; not at all where this thread is not telling.
pub async fn turn() {
    if TELLING.get() {
        let turns = TURNS.with(Arc::clone);
        // It is never closed.
        if let Ok(turn) = turns.acquire().await {
            turn.forget();
        }
    }
}

/// Tells a client of an ended flow its end, with as few system calls as can be; the caller closes the
/// socket after its [`turn`]. `goodbye`: it understands a close frame now. `reset`: it must not take what
/// it has for complete. A client that does not take what it was sent is reset as well: its send queue
/// would stay in the kernel. Returns the bytes that were on their way to it.
pub async fn tell(client: &mut Side, goodbye: bool, reset: bool) -> u64 {
    let on_their_way = client.tcp().unacknowledged();
    if reset || (on_their_way > 0 && client.tcp().is_stalled()) {
        client.tcp().abort();
        return on_their_way;
    }
    if goodbye {
        // Close frame, close_notify and FIN leave in one segment.
        client.tcp().cork();
        let last = async {
            client.write_all(&RESTART).await?;
            client.shutdown().await
        };
        if let Some(Ok::<(), io::Error>(())) = once(last).await {
            return on_their_way;
        }
    }
    client.tcp().say_end();
    on_their_way
}

/// Polls once: a peer that does not read must not hold this task. `None`: it is not done.
pub async fn once<T>(last: impl Future<Output = T>) -> Option<T> {
    let mut last = pin!(last);
    std::future::poll_fn(|cx| match last.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::pair;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;
    use tokio::task::yield_now;

    /// Fails if a flow goes on before all were told, if more go on than were let, or if one is forgotten.
    #[tokio::test]
    async fn nobody_goes_before_the_last_was_told() {
        turn().await;
        let telling = Telling::begin();
        let mut flows = tokio::task::JoinSet::new();
        for _ in 0..5 {
            flows.spawn(turn());
        }
        yield_now().await;
        assert!(flows.try_join_next().is_none());
        let mut gone = Vec::new();
        loop {
            let more = telling.let_go(2);
            yield_now().await;
            gone.push(std::iter::from_fn(|| flows.try_join_next()).count());
            if !more {
                break;
            }
        }
        assert_eq!(gone, [2, 2, 1]);
        drop(telling);
        turn().await;
    }

    /// Segments the kernel has got for `socket`: `tcpi_segs_in` of `linux/tcp.h`, which libc lacks.
    fn segments(socket: &TcpStream) -> u32 {
        let mut info = [0u32; 64];
        let mut size = size_of_val(&info) as libc::socklen_t;
        let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        // SAFETY: the descriptor is open and `info` has room for `size` bytes.
        let rc =
            unsafe { libc::getsockopt(fd, level, option, info.as_mut_ptr().cast(), &mut size) };
        assert!(rc == 0 && size >= 144);
        info[35]
    }

    /// Red without the cork: two segments, two wake-ups of the client, a third more time for all of them.
    #[tokio::test]
    async fn close_frame_and_end_are_one_segment() {
        let (mut client, mut side) = pair().await;
        let before = segments(&client);
        assert_eq!(tell(&mut side, true, false).await, 0);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, RESTART);
        assert_eq!(segments(&client) - before, 1);
    }

    /// Fails if a client that does not read keeps its send queue in the kernel, or if one that must not
    /// take what it has for complete sees an orderly end.
    #[tokio::test]
    async fn who_does_not_read_is_reset() {
        for (fill, reset) in [(true, false), (false, true)] {
            let (mut client, mut side) = pair().await;
            socket2::SockRef::from(&client)
                .set_recv_buffer_size(4096)
                .unwrap();
            while fill && once(side.write_all(&[7; 4096])).await.is_some() {}
            assert_eq!(tell(&mut side, true, reset).await > 0, fill);
            let end = client.read_to_end(&mut Vec::new()).await;
            assert!(end.is_err(), "an orderly end");
        }
    }
}
