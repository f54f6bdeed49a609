//! Closes clients gracefully when many flows end at once. A thread first notifies all its clients; then each
//! flow gets its turn to close two sockets, count, and write its access line.
//!
//! In: a reaper that notifies clients, and flows whose client was notified. Out: a turn for each flow, after
//! the last client was notified.
//! Notifying a client costs the kernel some 14 µs, the rest of a flow's end three times that. Without turns
//! the last of 9,000 clients waited for the rest of all other flows (benches/README.md).
//! Source: Diffusion load balancers, "TCP retransmission timeout".

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::RESTART;
use super::side::Side;
use super::substream::Reset;

/// Time a client has to take the last bytes and to stop sending (lingering close).
pub const LINGER: Duration = Duration::from_secs(1);
/// Most bytes that a lingering close reads and throws away.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;

thread_local! {
    static TURNS: RefCell<CloseTurns> = const { RefCell::new(CloseTurns { held: false, gone: 1, waiting: VecDeque::new() }) };
}

/// The flows of this thread that wait for their turn.
struct CloseTurns {
    held: bool,
    /// The number of the first turn that has not come.
    gone: u64,
    /// Wakers of the flows whose turns follow, in order.
    waiting: VecDeque<Waker>,
}

/// Holds the turns of this thread's ended flows back while it lives. Its holder gives each of them a turn
/// before it drops the hold, or ends together with its thread and those flows.
pub struct CloseHold(());

impl CloseHold {
    /// Begins to hold turns back.
    pub fn begin() -> Self {
        TURNS.with_borrow_mut(|turns| turns.held = true);
        CloseHold(())
    }

    /// Gives a turn to the first `flows` that wait. Returns false if no more of them wait.
    pub fn release(&self, flows: usize) -> bool {
        let (go, more) = TURNS.with_borrow_mut(|turns| {
            let go = turns.waiting.len().min(flows);
            turns.gone += go as u64;
            let go: Vec<Waker> = turns.waiting.drain(..go).collect();
            (go, !turns.waiting.is_empty())
        });
        go.into_iter().for_each(Waker::wake);
        more
    }
}

impl Drop for CloseHold {
    fn drop(&mut self) {
        TURNS.with_borrow_mut(|turns| {
            turns.held = false;
            // The wakers of ten thousand flows take 160 KiB.
            turns.waiting.shrink_to_fit();
        });
    }
}

/// Resolves when a flow whose client was notified may go on; at once if its thread holds no turns back.
#[derive(Debug)]
pub struct CloseTurn(u64);

impl CloseTurn {
    /// Returns a turn that has come.
    pub fn come() -> Self {
        CloseTurn(0)
    }

    fn next(cx: &Context<'_>) -> Self {
        TURNS.with_borrow_mut(|turns| {
            if !turns.held {
                return CloseTurn::come();
            }
            turns.waiting.push_back(cx.waker().clone());
            CloseTurn(turns.gone + turns.waiting.len() as u64 - 1)
        })
    }
}

impl Future for CloseTurn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        TURNS.with_borrow_mut(|turns| {
            let Some(ahead) = self.0.checked_sub(turns.gone) else {
                return Poll::Ready(());
            };
            if let Some(waker) = turns.waiting.get_mut(ahead as usize) {
                waker.clone_from(cx.waker());
            }
            Poll::Pending
        })
    }
}

/// Notifies a client that its flow has ended, with as few system calls as possible. The caller closes the
/// socket when the turn comes. `goodbye`: the client can understand a close frame now. `reset`: the client
/// must not take the bytes so far for complete. A stream that gets no close frame is always reset.
pub fn notify(cx: &mut Context<'_>, client: &mut Side, goodbye: bool, reset: bool) -> CloseTurn {
    match (client.tcp(), reset, goodbye) {
        (None, ..) => notify_stream(cx, client, goodbye),
        (Some(tcp), true, _) => tcp.abort(),
        (Some(_), false, true) if client.ssl().is_some() => send_close_frame(cx, client),
        (Some(tcp), false, true) => tcp.send_then_fin(&RESTART),
        (Some(tcp), false, false) => tcp.send_fin(),
    }
    CloseTurn::next(cx)
}

/// Resets a stream whose answer is cut, so that it never looks whole; its siblings go on.
fn notify_stream(cx: &mut Context<'_>, client: &mut Side, goodbye: bool) {
    let Some(stream) = client.stream() else {
        return;
    };
    match goodbye && stream.poll_write(cx, &RESTART, true).is_ready() {
        true => {}
        false => stream.reset(Reset::Cut),
    }
}

/// Under TLS, sends close frame, close_notify and FIN in one segment. A client that does not take them gets only
/// the FIN.
fn send_close_frame(cx: &mut Context<'_>, client: &mut Side) {
    if let Some(tcp) = client.tcp() {
        tcp.cork();
    }
    let last = pin!(async {
        client.write_all(&RESTART).await?;
        client.shutdown().await
    });
    let said = matches!(last.poll(cx), Poll::Ready(Ok::<(), io::Error>(())));
    if let (false, Some(tcp)) = (said, client.tcp()) {
        tcp.send_fin();
    }
}

/// Returns the bytes that a notified client has not acknowledged. Resets a client that takes no bytes,
/// because its send queue would stay in the kernel.
pub fn reset_if_stalled(client: &Side) -> u64 {
    let left = client.unacknowledged();
    if let Some(tcp) = client.tcp().filter(|tcp| left > 0 && tcp.is_stalled()) {
        tcp.abort();
    }
    left
}

/// Sends `bytes` and FIN, then reads what the client still sends, for at most [`LINGER`] in all. Closing a socket with
/// unread bytes resets it, and the reset would overtake the answer.
pub async fn lingering_close<S>(side: &mut S, bytes: &[u8])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = async {
        side.write_all(bytes).await?;
        side.shutdown().await?;
        // On the heap: an array would be part of the task of every connection that may come here.
        let (mut scrap, mut read) = (vec![0; 4096], 0);
        while read < MAX_DISCARDED {
            match side.read(&mut scrap).await? {
                0 => break,
                n => read += n,
            }
        }
        io::Result::Ok(())
    };
    // A client that does not take the answer in time is gone or hostile.
    let _ = tokio::time::timeout(LINGER, said).await;
}

/// Polls once: a peer that does not read must not hold this task. `None`: not done.
pub async fn poll_once<T>(last: impl Future<Output = T>) -> Option<T> {
    let mut last = pin!(last);
    std::future::poll_fn(|cx| match last.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Waits for a turn, as a flow whose client was notified.
#[cfg(test)]
pub async fn wait_for_turn() {
    std::future::poll_fn(|cx| Poll::Ready(CloseTurn::next(cx)))
        .await
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::{pair, segments};
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt;
    use tokio::task::yield_now;

    /// Fails if a flow goes on before every client was notified or beyond the number released, or if it never
    /// goes on.
    #[tokio::test]
    async fn no_flow_goes_before_the_last_client_was_notified() {
        wait_for_turn().await;
        let hold = CloseHold::begin();
        let mut flows = tokio::task::JoinSet::new();
        for _ in 0..5 {
            flows.spawn(wait_for_turn());
        }
        yield_now().await;
        assert!(flows.try_join_next().is_none());
        let mut gone = Vec::new();
        loop {
            let more = hold.release(2);
            yield_now().await;
            gone.push(std::iter::from_fn(|| flows.try_join_next()).count());
            if !more {
                break;
            }
        }
        assert_eq!(gone, [2, 2, 1]);
        drop(hold);
        wait_for_turn().await;
    }

    async fn told(side: &mut Side, goodbye: bool, reset: bool) -> u64 {
        poll_fn(|cx| Poll::Ready(notify(cx, side, goodbye, reset)))
            .await
            .await;
        reset_if_stalled(side)
    }

    /// Fails without the cork: two segments and two wake-ups of the client, and a third more time for all
    /// clients.
    #[tokio::test]
    async fn close_frame_and_end_are_one_segment() {
        let (mut client, mut side) = pair().await;
        let before = segments(&client);
        told(&mut side, true, false).await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, RESTART);
        assert_eq!(segments(&client) - before, 1);
    }

    /// Fails if a stalled client keeps its send queue in the kernel, or if a client that must see a reset
    /// sees an orderly end.
    #[tokio::test]
    async fn a_client_that_does_not_read_is_reset() {
        for (fill, reset) in [(true, false), (false, true)] {
            let (mut client, mut side) = pair().await;
            socket2::SockRef::from(&client)
                .set_recv_buffer_size(4096)
                .unwrap();
            while fill && poll_once(side.write_all(&[7; 4096])).await.is_some() {}
            let left = told(&mut side, true, reset).await;
            assert!(!fill || left > 4096, "{left}");
            let end = client.read_to_end(&mut Vec::new()).await;
            assert!(end.is_err(), "an orderly end");
        }
    }
}
