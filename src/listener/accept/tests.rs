//! Accept loops on runtimes of their own, with real sockets. The tests keep the accepted sockets and serve
//! none.

use std::path::Path;

use parking_lot::Mutex;
use prometheus::IntGauge;
use socket2::SockRef;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::config::{self, Config};
use crate::proxy::threads::Seat;
use crate::route::Table;

const LIMIT: Duration = Duration::from_secs(20);

fn conf(keepalive: &str) -> config::Listener {
    let yaml = format!(
        "nodes: {{ n: {{ address: 127.0.0.1:9 }} }}\nlisteners:\n  \
         - {{ name: l, bind: [127.0.0.1:0], mode: tcp, to: n, tcp: {{ keepalive: {keepalive} }} }}\n"
    );
    let config = Config::parse(&yaml, "f", Path::new("")).expect("sound");
    config.listeners.into_iter().next().expect("one listener")
}

/// Threads, and the sockets accepted on each, counted as live connections.
struct Rig {
    accepting: AcceptLoop,
    kept: Arc<Mutex<Vec<(usize, Accepted, Seat)>>>,
    /// Dropping them ends the threads.
    _runtimes: Vec<Runtime>,
}

impl Rig {
    fn start(threads: usize, bind: &str) -> Rig {
        let conf = conf("90s");
        let socket = bind_tuned(bind.parse().expect("an address"), &conf);
        Self::on(socket, threads)
    }

    /// Accepts from `socket`, which keeps the options it has.
    fn on(socket: TcpListener, threads: usize) -> Rig {
        let table = Table {
            plugins: Default::default(),
            hides_forwarding: false,
            default: None,
            pools: Arc::default(),
            nodes: Arc::default(),
        };
        let listener = Listener::new(&conf("90s"), table, None);
        let runtime = |_| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
        };
        let runtimes: Vec<Runtime> = (0..threads)
            .map(|n| runtime(n).expect("a thread"))
            .collect();
        let thread = |runtime: &Runtime| {
            let connections = IntGauge::new("connections", "of a thread").expect("legal");
            Thread::new(runtime.handle().clone(), connections)
        };
        let threads: Arc<[Thread]> = runtimes.iter().map(thread).collect();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (keep, on) = (kept.clone(), threads.clone());
        let take = move |at: usize, accepted| keep.lock().push((at, accepted, on[at].seat()));
        let asked = socket.local_addr().expect("bound");
        let prepared = AcceptLoop::prepare(asked, socket, &listener, threads, take);
        Rig {
            accepting: prepared.expect("descriptors").start(),
            kept,
            _runtimes: runtimes,
        }
    }

    fn come(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.accepting.bound.port())).expect("connect")
    }

    fn wait_for(&self, count: usize) {
        let until = Instant::now() + LIMIT;
        while self.kept.lock().len() < count {
            assert!(Instant::now() < until, "{count} are accepted");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Counts the connections of each of `threads` threads.
    fn split(&self, threads: usize) -> Vec<usize> {
        let kept = self.kept.lock();
        let of = |at| kept.iter().filter(|(on, ..)| *on == at).count();
        (0..threads).map(of).collect()
    }
}

fn bind_tuned(asked: SocketAddr, conf: &config::Listener) -> TcpListener {
    bind(asked, Some(&options(conf)), &conf.unix).expect("a free port")
}

/// Asserts that a socket has all options of a client's socket, and sends keep-alive probes after `keepalive`
/// seconds.
fn assert_tuned(stream: &TcpStream, keepalive: u64, name: &str) {
    let s = SockRef::from(stream);
    let seconds = Duration::from_secs;
    assert!(s.tcp_nodelay().expect("TCP_NODELAY"), "{name}");
    assert!(s.keepalive().expect("SO_KEEPALIVE"), "{name}");
    assert_eq!(
        s.tcp_keepalive_time().expect("IDLE"),
        seconds(keepalive),
        "{name}"
    );
    assert_eq!(
        s.tcp_keepalive_interval().expect("INTVL"),
        seconds(5),
        "{name}"
    );
    assert_eq!(s.tcp_keepalive_retries().expect("CNT"), 3, "{name}");
    assert_eq!(s.tcp_notsent_lowat().expect("LOWAT"), 1, "{name}");
}

/// Aim: Linux hands the listening socket's options down to each accepted socket. Fails if an option is set
/// after the first client could come, or if an option is not inherited.
#[test]
fn accepted_sockets_inherit_the_options() {
    let socket = bind_tuned("127.0.0.1:0".parse().expect("an address"), &conf("90s"));
    let address = socket.local_addr().expect("bound");
    let _client = TcpStream::connect(address).expect("connect");
    socket.set_nonblocking(false).expect("a socket");
    assert_tuned(&socket.accept().expect("accept").0, 90, "queued at once");
}

/// Aim: a reload's options hold for the next client. Fails if they reach no socket, or if a socket blocks or
/// is inherited by a child process.
#[test]
fn a_change_reaches_the_next_client() {
    let rig = Rig::start(2, "127.0.0.1:0");
    let _first = rig.come();
    rig.wait_for(1);
    rig.accepting.tune(&conf("40s"));
    let _second = rig.come();
    rig.wait_for(2);
    for ((_, accepted, _), keepalive) in rig.kept.lock().iter().zip([90, 40]) {
        assert_tuned(&accepted.stream, keepalive, "accepted");
        let s = SockRef::from(&accepted.stream);
        assert!(s.nonblocking().expect("flags"));
        let flags = rustix::io::fcntl_getfd(&accepted.stream).expect("flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}

/// Aim: a socket taken over from another process or listener gets this listener's options. Fails if
/// [`AcceptLoop::start`] trusts the options it finds.
#[test]
fn a_socket_taken_over_is_tuned() {
    let bare = bind(
        "127.0.0.1:0".parse().expect("an address"),
        None,
        &UnixSocket::default(),
    )
    .expect("a free port");
    let rig = Rig::on(bare, 1);
    let _client = rig.come();
    rig.wait_for(1);
    assert_tuned(&rig.kept.lock()[0].1.stream, 90, "taken over");
}

/// Aim: clients that come one by one are spread evenly. In a burst no thread has more than [`LEAD`] above
/// another. Fails if one thread gets more.
#[test]
fn threads_share_clients_evenly() {
    for threads in [2, 4] {
        let rig = Rig::start(threads, "127.0.0.1:0");
        let mut clients = Vec::new();
        for n in 1..=40 {
            clients.push(rig.come());
            rig.wait_for(n);
        }
        let slow = rig.split(threads);
        assert!(slow.iter().all(|n| *n == 40 / threads), "{slow:?}");
        clients.extend((0..200).map(|_| rig.come()));
        rig.wait_for(240);
        let burst = rig.split(threads);
        let (least, most) = (burst.iter().min(), burst.iter().max());
        let lead = most.zip(least).map(|(most, least)| (most - least) as i64);
        assert!(lead.is_some_and(|lead| lead <= LEAD), "{burst:?}");
    }
}

/// Aim: a thread that lost its clients gets the next ones. Fails if clients that leave are not made up for.
#[test]
fn an_emptied_thread_fills_up() {
    let rig = Rig::start(2, "127.0.0.1:0");
    let mut clients: Vec<_> = (0..20).map(|_| rig.come()).collect();
    rig.wait_for(20);
    rig.kept.lock().retain(|(at, ..)| *at == 0);
    let before = rig.kept.lock().len();
    for n in 1..=before {
        clients.push(rig.come());
        rig.wait_for(before + n);
    }
    let split = rig.split(2);
    // The turn was passed before the others left, so the full thread may have had it once more.
    assert!(split[0].abs_diff(split[1]) <= 2, "{split:?}");
}

/// Aim: an exact bind address is the VIP. Fails if it is looked up again, or if a wildcard is taken for the
/// address reached.
#[test]
fn an_exact_address_is_the_vip() {
    for (bind, exact) in [("127.0.0.1:0", true), ("0.0.0.0:0", false)] {
        let rig = Rig::start(1, bind);
        let client = rig.come();
        rig.wait_for(1);
        let (_, accepted, _) = &rig.kept.lock()[0];
        let reached = client.peer_addr().expect("connected");
        assert_eq!(accepted.vip, exact.then_some(reached), "{bind}");
        assert_eq!(accepted.peer, client.local_addr().expect("connected"));
    }
}

/// Aim: after the end no thread brings a client, and the queue of another handle stays open. Fails if a
/// thread brings a client that a drain has not counted, or if the end closes that queue.
#[test]
fn the_end_is_complete_and_keeps_the_queue() {
    let rig = Rig::start(4, "127.0.0.1:0");
    let (_clients, handle) = ([rig.come(), rig.come()], rig.accepting.socket());
    rig.wait_for(2);
    let bound = rig.accepting.bound;
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(rig.accepting.end());
    let _late = TcpStream::connect(bound).expect("the handle listens");
    assert_eq!(rig.kept.lock().len(), 2);
    let handle = handle.expect("a handle");
    handle.set_nonblocking(false).expect("a socket");
    handle.accept().expect("a late client waits in the queue");
    drop(handle);
    assert!(
        TcpStream::connect(bound).is_err(),
        "no socket listens any more"
    );
}
