//! Accepts operators' connections: few at a time, and with descriptors of their own.
//!
//! In: the listening socket. Out: at most [`MAX`] connections, each served in a task. When there are so many, a
//! newcomer replaces the oldest connection that has shown no token, or one that makes no progress. So nobody
//! who merely reaches the address keeps operators out. Source: FAULTS D71, D54.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pushgate_plugins::unix::Shown;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::peer::Peer;
use super::shared::refused;
use super::timed::Timed;
use crate::stream::unix::Listening;

/// Most connections at once: 32 dashboards, and as many tools.
const MAX: usize = 64;
/// Descriptors held for the time when the process has no other left.
const SPARE: usize = 4;
/// Pause when not even a spare descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);
/// A connection without progress for this long may be replaced. A dashboard gets an event each second.
const STALLED: Duration = Duration::from_secs(2);
/// Bytes that the kernel holds of an unread answer; it would take 4 MiB by itself.
const SEND_BUFFER: usize = 64 * 1024;
/// Deadline for the head of a request: an operator's tool is quick, and a slow sender gets no longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

struct Connection {
    peer: Arc<Peer>,
    task: AbortHandle,
}

/// Serves `router` on `socket`.
pub async fn serve(socket: Listening, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut spares = Spares::default();
    let mut open: Vec<Connection> = Vec::new();
    let ended = Arc::new(Notify::new());
    let mut is_short = false;
    loop {
        // A spare that was just released is for the next client.
        if !is_short {
            spares.refill(&socket);
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = ended.notified() => continue,
        };
        is_short = accepted.as_ref().is_err_and(is_shortage);
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(_) if is_short && spares.release() => continue,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        open.retain(|c| !c.task.is_finished());
        if open.len() >= MAX {
            refused("connections");
            log::warn!(
                "admin: {MAX} connections are open; closing one for {}, or that one",
                Shown(address)
            );
            match replaceable(&open) {
                Some(at) => open.remove(at).task.abort(),
                None => continue,
            }
        }
        let peer = Peer::new(address);
        let serving = one(stream, peer.clone(), service.clone());
        let ended = ended.clone();
        let task = tokio::spawn(async move {
            serving.await;
            ended.notify_one();
        });
        open.push(Connection {
            peer,
            task: task.abort_handle(),
        });
    }
}

/// Returns the connection that makes room: the oldest without a token, or the one that is stalled longest.
fn replaceable(open: &[Connection]) -> Option<usize> {
    let untrusted = |c: &Connection| !c.peer.is_trusted();
    open.iter().position(untrusted).or_else(|| {
        let all = open.iter().enumerate();
        let stalled = all.map(|(at, c)| (c.peer.stalled(), at));
        let longest = stalled.max()?;
        (longest.0 >= STALLED).then_some(longest.1)
    })
}

async fn one(stream: TcpStream, peer: Arc<Peer>, service: TowerToHyperService<Router>) {
    // If it fails, the kernel holds more of an unread answer.
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let stream = Timed::new(stream, peer.clone());
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    // An error ends this connection only.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn is_shortage(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Descriptors that are released when the process has no other left.
#[derive(Default)]
struct Spares(Vec<OwnedFd>);

impl Spares {
    fn refill(&mut self, socket: &Listening) {
        while self.0.len() < SPARE {
            let Ok(spare) = socket.as_fd().try_clone_to_owned() else {
                return;
            };
            self.0.push(spare);
        }
    }

    fn release(&mut self) -> bool {
        self.0.pop().is_some()
    }
}
