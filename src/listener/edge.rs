//! One client connection from accept to close: TLS, HTTP/1 request by request, HTTP/2, layer 4,
//! and the exits from Pingora into the relays.
//!
//! Source: Lightstreamer clustering §1 (layers 7 and 4), §3; Diffusion load balancers, all points.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::accept::Listener;
use super::client_io::{ClientIo, NoHead};
use super::door;
use super::exchange::{CURRENT, Conn, Exchange, Reason};
use super::handshake;
use super::http::Front;
use super::http2::Http2;
use super::open::{Connections, Open};
use super::relayed;
use super::request_head::RequestHead;
use super::tcp;
use crate::config::Mode;
use crate::observe::metrics;
use crate::stream::handoff::{Left, Phase};
use crate::stream::side::Side;

/// The threads that serve client connections, each with a runtime of its own; at least one of a kind.
pub struct Runtimes {
    /// Carry bytes: a connection stays on the one it was given to.
    pub data: Vec<Handle>,
    /// Shake hands, so that no live connection waits for the arithmetic of a new one.
    pub handshakes: Vec<Handle>,
}

/// What all client connections share.
pub struct Edge {
    proxy: Arc<HttpProxy<Front>>,
    runtimes: Runtimes,
    next: AtomicUsize,
    connections: Connections,
    drain: watch::Receiver<bool>,
}

/// Time a client's request has to arrive when a drain has begun; it is served, and is the last one.
/// Closed at once, a connection just accepted would be reset under its first request.
const LAST_REQUEST: Duration = Duration::from_millis(500);

impl Edge {
    /// An edge whose connections are served by each thread of `runtimes` in turn and drained when `drain` turns true.
    pub fn new(
        proxy: HttpProxy<Front>,
        runtimes: Runtimes,
        max_connections: usize,
        drain: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Edge {
            proxy: Arc::new(proxy),
            runtimes,
            next: AtomicUsize::new(0),
            connections: Connections::at_most(max_connections),
            drain,
        })
    }

    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.connections.open()
    }

    /// Takes an accepted socket to one of the data threads; where TLS ends here, by way of one that
    /// shakes hands.
    pub fn take(
        self: &Arc<Self>,
        listener: &Arc<Listener>,
        stream: std::net::TcpStream,
        peer: SocketAddr,
    ) {
        let Some(open) = self.connections.enter(listener) else {
            refused(listener, "max_connections");
            return;
        };
        let edge = self.clone();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let data = self.runtimes.data[turn % self.runtimes.data.len()].clone();
        if listener.tls.is_none() {
            data.spawn(async move {
                let service = match enter(open, stream, peer).await {
                    Some((side, conn)) => edge.serve(side, conn),
                    None => return,
                };
                service.await;
            });
            return;
        }
        let shaking = &self.runtimes.handshakes[turn % self.runtimes.handshakes.len()];
        shaking.spawn(async move {
            let Some((mut side, conn)) = enter(open, stream, peer).await else {
                return;
            };
            match side.tcp_mut().rehome(&data) {
                Ok(()) => drop(data.spawn(async move { edge.serve(side, conn).await })),
                Err(_) => refused(&conn.listener, "no_descriptor"),
            }
        });
    }

    /// The service of one connection. Boxed, each kind by itself, so that a silent stream keeps the
    /// relay's 1 KiB and not the largest's.
    fn serve(
        self: &Arc<Self>,
        mut side: Side,
        conn: Arc<Conn>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let limit = conn.listener.conf.load().tcp.user_timeout.0;
        side.tcp_mut().watch(limit);
        let h2 = side
            .ssl()
            .is_some_and(|s| s.selected_alpn_protocol() == Some(b"h2"));
        let mode = conn.listener.conf.load().mode;
        match (mode, h2) {
            (Mode::Tcp, _) => Box::pin(tcp::serve(side, conn)),
            (Mode::Http, true) => Box::pin(self.clone().http2(side, conn)),
            (Mode::Http, false) => {
                let exchanges = self.exchanges((side, Vec::new()), &conn, true);
                Box::pin(self.clone().http1(exchanges, conn))
            }
        }
    }

    /// HTTP/2: Pingora's accept loop, each stream an exchange of its own that can be cut alone.
    async fn http2(self: Arc<Self>, side: Side, conn: Arc<Conn>) {
        let io = Box::new(ClientIo::new((side, Vec::new()), conn.clone()));
        let app = Arc::new(Http2 {
            proxy: self.proxy.clone(),
            conn,
        });
        app.process_new(io, &self.drain).await;
    }

    /// HTTP/1: Pingora and the relays take turns. The future of each is freed before the next begins.
    async fn http1(self: Arc<Self>, mut exchanges: Exchanges, conn: Arc<Conn>) {
        while let Some(ex) = exchanges.await {
            match relayed::relayed(ex).await {
                Some(client) => exchanges = self.exchanges(client, &conn, false),
                None => return,
            }
        }
    }

    /// One exchange after the other under Pingora. Returns the one that left, by a 101 or with an
    /// answer to be relayed; `None`: the connection is over.
    fn exchanges(self: &Arc<Self>, client: Left, conn: &Arc<Conn>, first: bool) -> Exchanges {
        let io = ClientIo::new(client, conn.clone());
        Box::pin(self.clone().serve_exchanges(io, conn.clone(), first))
    }

    async fn serve_exchanges(
        self: Arc<Self>,
        mut io: ClientIo,
        conn: Arc<Conn>,
        mut first: bool,
    ) -> Option<Arc<Exchange>> {
        let mut settings = None;
        loop {
            let head = self.next_head(&mut io, &conn, first).await?;
            first = false;
            let ex = Exchange::new(conn.clone(), head.protocol());
            ex.record.lock().tries().request = Some(head.framing.clone());
            io.begin(ex.flow.clone(), &head);
            match self.exchange(io, settings.take(), &ex).await {
                Served::Again(back, kept) => {
                    (io, settings) = (*back, kept);
                    ex.close(Reason::Done, (0, 0));
                }
                Served::Over => {
                    ex.close(Reason::Done, (0, 0));
                    part(&conn).await;
                    return None;
                }
                Served::Cut => {
                    ex.close(ex.killed(), (0, 0));
                    return None;
                }
                Served::Switched => return Some(ex),
            }
        }
    }

    /// Waits for the next request's head and judges it; a bad one is answered here.
    async fn next_head(
        &self,
        io: &mut ClientIo,
        conn: &Arc<Conn>,
        first: bool,
    ) -> Option<RequestHead> {
        let conf = conn.listener.conf.load_full();
        let deadline = conf.head_timeout.0;
        // Between requests a connection may be idle for ever, before the first one it may not. A
        // drain ends both, but not at once: a request may be on its way.
        let silence = if first { deadline } else { Duration::MAX };
        let mut drain = self.drain.clone();
        let drained = async {
            let _ = drain.wait_for(|d| *d).await;
            tokio::time::sleep(LAST_REQUEST).await;
        };
        let began = tokio::select! {
            biased;
            waited = tokio::time::timeout(silence, io.wait()) => waited.map(Result::ok),
            () = drained => return None,
        };
        let head = match began {
            Ok(waited) => {
                waited?;
                tokio::time::timeout(deadline, io.read_head(&conf.limits)).await
            }
            Err(late) => Err(late),
        };
        match head {
            Ok(Ok(head)) => Some(head),
            Ok(Err(NoHead::Fault(fault))) => {
                self.refuse(io, conn, fault.status(), Reason::BadRequest)
                    .await;
                log::debug!(
                    "listener {}: {} sent no legal head: {fault:?}",
                    conn.listener.name,
                    conn.client
                );
                None
            }
            Ok(Err(NoHead::Closed | NoHead::Broken)) => None,
            // A browser's connection in reserve: an answer would be taken for that of its next request.
            Err(_) if io.has_nothing() => None,
            Err(_) => {
                self.refuse(io, conn, (408, "Request Timeout"), Reason::HeadTimeout)
                    .await;
                None
            }
        }
    }

    async fn refuse(
        &self,
        io: &mut ClientIo,
        conn: &Arc<Conn>,
        status: (u16, &'static str),
        reason: Reason,
    ) {
        let (code, phrase) = status;
        let body = format!("{code} {phrase}\n");
        let answer = format!(
            "HTTP/1.1 {code} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        io.answer(answer.as_bytes()).await;
        let listener = conn.listener.name.as_str();
        metrics::get()
            .answered
            .with_label_values(&[listener, &code.to_string()])
            .inc();
        let ex = Exchange::new(conn.clone(), "http/1.1");
        ex.record.lock().status = code;
        ex.close(reason, (0, 0));
    }

    /// One exchange under Pingora, until it is done, is cut, or leaves.
    async fn exchange(
        &self,
        io: ClientIo,
        settings: Option<HttpPersistentSettings>,
        ex: &Arc<Exchange>,
    ) -> Served {
        let mut session = ServerSession::new_http1(Box::new(io));
        session.set_keepalive(Some(60));
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
        // Boxed: Pingora's future is some 20 KiB and must be gone while a stream is relayed.
        let mut serving = Box::pin(CURRENT.scope(
            ex.clone(),
            self.proxy.process_new_http(session, &self.drain),
        ));
        let mut kill = ex.kill();
        let served = std::future::poll_fn(|cx| {
            if Pin::new(&mut kill).poll(cx).is_ready() {
                return Poll::Ready(Served::Cut);
            }
            let polled = serving.as_mut().poll(cx);
            if ex.flow.handoff.phase() == Phase::Switched {
                return Poll::Ready(Served::Switched);
            }
            polled.map(again)
        })
        .await;
        drop(serving);
        served
    }
}

/// Lets a client in; a refusal is counted. The door's future is large, and freed before the
/// connection is served.
async fn enter(
    open: Open,
    stream: std::net::TcpStream,
    peer: SocketAddr,
) -> Option<(Side, Arc<Conn>)> {
    let listener = Arc::clone(&open);
    let entered = Box::pin(door::enter(open, stream, peer)).await;
    entered.map_err(|word| refused(&listener, word)).ok()
}

/// Exchanges of one client until one leaves Pingora.
type Exchanges = Pin<Box<dyn Future<Output = Option<Arc<Exchange>>> + Send>>;

/// What became of an exchange.
enum Served {
    /// The connection can carry the next request.
    Again(Box<ClientIo>, Option<HttpPersistentSettings>),
    /// The connection is closed.
    Over,
    /// The flow was killed.
    Cut,
    /// The sockets are in the hand-off.
    Switched,
}

fn again(reused: Option<ReusedHttpStream>) -> Served {
    let Some((stream, settings)) = reused.map(ReusedHttpStream::consume) else {
        return Served::Over;
    };
    match stream.into_any().downcast::<ClientIo>() {
        Ok(io) => Served::Again(io, settings),
        Err(_) => Served::Over,
    }
}

/// Closes a connection whose request was answered before it was read whole.
async fn part(conn: &Conn) {
    let side = conn.parting.lock().take();
    if let Some(mut side) = side {
        handshake::last_words(&mut side, b"").await;
    }
}

fn refused(listener: &Listener, reason: &str) {
    metrics::get()
        .refused
        .with_label_values(&[listener.name.as_str(), reason])
        .inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What a client keeps that is idle, or whose request waits in Pingora. Red with an array in the way its
    /// last words take: it was 5.2 KiB.
    #[test]
    fn who_waits_is_small() {
        let bytes = size(Edge::serve_exchanges);
        assert!(bytes <= 1800, "{bytes}");
    }
}
