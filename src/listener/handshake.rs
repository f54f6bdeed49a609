//! Performs the TLS handshake of a client connection.
//!
//! In: an accepted socket. Out: its TLS side, or an error. A client that speaks plain HTTP to the TLS port
//! gets a hint in plain text. Source: FAULTS D32, D33.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use openssl::ssl::{Ssl, SslAcceptor};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio_openssl::SslStream;

use crate::acme::PROTOCOL;
use crate::stream::client_share::ClientShare;
use crate::stream::graceful_close::{lingering_close, poll_once};
use crate::stream::side::Side;
use crate::stream::socket::Tcp;

const HINT: &str = "400 Bad Request: this port speaks TLS, use https://\n";

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Garbage, no common version, or an alert of either side.
    Failed,
    /// The handshake took longer than its deadline.
    Late,
    /// The client spoke plain HTTP.
    PlainHttp,
    /// No client: an authority asked for a proof by TLS-ALPN-01, and got it.
    AcmeChallenge,
}

impl HandshakeError {
    /// Returns the label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HandshakeError::Failed => "handshake",
            HandshakeError::Late => "handshake_timeout",
            HandshakeError::PlainHttp => "plain_http",
            HandshakeError::AcmeChallenge => "acme_challenge",
        }
    }
}

/// Shakes hands within `deadline`. `http`: the listener serves HTTP, so a client that speaks plain HTTP gets
/// a hint. `share`: of its client, whose handshakes take turns.
///
/// Errors: [`HandshakeError`]; the socket is closed.
pub async fn shake(
    acceptor: SslAcceptor,
    tcp: Tcp,
    deadline: Duration,
    http: bool,
    share: Option<Arc<ClientShare>>,
) -> Result<Side, HandshakeError> {
    let accepted = accept(acceptor, tcp, http, share.as_deref());
    match tokio::time::timeout(deadline, accepted).await {
        Ok(shaken) => shaken,
        Err(_) => Err(HandshakeError::Late),
    }
}

async fn accept(
    acceptor: SslAcceptor,
    mut tcp: Tcp,
    http: bool,
    share: Option<&ClientShare>,
) -> Result<Side, HandshakeError> {
    // Peeked, not taken: the handshake reads the byte again.
    let first = tcp.first_byte().await;
    if http && first.is_some_and(|b| b.is_ascii_uppercase()) {
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{HINT}",
            HINT.len()
        );
        lingering_close(&mut tcp, head.as_bytes()).await;
        return Err(HandshakeError::PlainHttp);
    }
    let ssl = Ssl::new(acceptor.context()).map_err(|_| HandshakeError::Failed)?;
    let mut stream = SslStream::new(ssl, tcp).map_err(|_| HandshakeError::Failed)?;
    let shaken = match share {
        Some(share) => {
            let is_ready =
                |s: &SslStream<Tcp>, cx: &mut Context<'_>| s.get_ref().poll_readable(cx).is_ready();
            let step = |s: &mut SslStream<Tcp>, cx: &mut Context<'_>| Pin::new(s).poll_accept(cx);
            in_turn(&share.handshakes, &mut stream, is_ready, step).await
        }
        None => Pin::new(&mut stream).accept().await,
    };
    match shaken {
        Ok(()) if stream.ssl().selected_alpn_protocol() == Some(PROTOCOL) => {
            // Nothing follows such a handshake (RFC 8737 §3). Nobody waits for a client that does not read.
            let _ = poll_once(stream.shutdown()).await;
            lingering_close(stream.get_mut(), b"").await;
            Err(HandshakeError::AcmeChallenge)
        }
        Ok(()) => Ok(Side::Tls(Box::new(stream))),
        Err(_) => {
            // A lingering close lets the alert arrive. Unread bytes of the client would cause a reset that
            // overtakes it.
            lingering_close(stream.get_mut(), b"").await;
            Err(HandshakeError::Failed)
        }
    }
}

/// Takes the steps of a handshake in its client's turn only, so that a thousand handshakes of one client do not
/// stand in line in front of another client's. They wait, because an office that reconnects at once must get
/// in: refused clients would come again and cost more. A turn lasts until all that is ready on this thread has
/// run once. A handshake that waits for the network has no turn, so no client holds one by its silence.
///
/// `is_ready`: bytes have arrived, so the next step may be dear.
async fn in_turn<S, T>(
    turns: &Semaphore,
    handshake: &mut S,
    is_ready: impl Fn(&S, &mut Context<'_>) -> bool,
    mut step: impl FnMut(&mut S, &mut Context<'_>) -> Poll<T>,
) -> T {
    let mut waits = None;
    let mut held = None;
    poll_fn(|cx| {
        if let Some((turn, stepped)) = held.take() {
            drop(turn);
            if let Poll::Ready(end) = stepped {
                return Poll::Ready(end);
            }
        }
        if waits.is_none() && !is_ready(handshake, cx) {
            return step(handshake, cx);
        }
        let turn = match turns.try_acquire() {
            Ok(turn) if waits.is_none() => turn,
            _ => {
                let waiting = waits.get_or_insert_with(|| Box::pin(turns.acquire()));
                let turn = ready!(waiting.as_mut().poll(cx));
                waits = None;
                match turn {
                    Ok(turn) => turn,
                    // Nobody closes the turns.
                    Err(_) => return step(handshake, cx),
                }
            }
        };
        held = Some((turn, step(handshake, cx)));
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Aim: a client's handshake does not wait for those of another client, however many of them are ready.
    /// Fails if a client's handshakes take no turns, or if a turn ends with its step: then the victim is last.
    #[tokio::test]
    async fn a_crowd_stands_in_its_own_line() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let shake = |turns: &Arc<Semaphore>, who: usize| {
            let (turns, order) = (turns.clone(), order.clone());
            let step = move |left: &mut usize, cx: &mut Context<'_>| {
                *left -= 1;
                order.lock().push(who);
                // The client's next bytes come at once.
                cx.waker().wake_by_ref();
                if *left == 0 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            };
            tokio::spawn(async move { in_turn(&turns, &mut 2, |_, _| true, step).await })
        };
        let (hostile, victim) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let crowd: Vec<_> = (1..=200).map(|n| shake(&hostile, n)).collect();
        let last = shake(&victim, 0);
        for task in crowd.into_iter().chain([last]) {
            task.await.expect("no panic");
        }
        let order = order.lock();
        let ended = order.iter().rposition(|who| *who == 0);
        assert_eq!(order.len(), 402);
        assert!(ended.is_some_and(|at| at < 8), "{ended:?} of {order:?}");
    }
}
