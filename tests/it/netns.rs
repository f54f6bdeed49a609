//! A host of its own: a network namespace behind a cable (a veth pair) that a test can cut, or make
//! swallow every frame without a word.
//!
//! In: nothing. Out: two addresses, sockets inside, and the cable's faults. Needs root and `ip` of
//! iproute2, as CI has; where either is missing the tests say so and fail, unless
//! PUSHGATE_TEST_NETNS=skip leaves them out.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpListener, TcpStream};

/// A host behind a cable; dropped, both are gone.
pub struct Host {
    name: String,
    outer: String,
    /// Our end of the cable.
    pub here: Ipv4Addr,
    /// The host's end.
    pub there: Ipv4Addr,
}

/// Whether these tests are left out; said on standard error.
pub fn skipped() -> bool {
    let skip = std::env::var_os("PUSHGATE_TEST_NETNS").is_some_and(|v| v == "skip");
    if skip {
        eprintln!("left out by PUSHGATE_TEST_NETNS=skip: needs network namespaces");
    }
    skip
}

impl Host {
    /// Lays a cable to a new host.
    pub fn new() -> Host {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..512 {
            let n = std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
            // 198.18.0.0/15 is for tests of networks (RFC 2544), a /30 for each cable.
            let [_, b, c, _] = (n << 2).to_be_bytes();
            let net = [198, 18 + (b & 1), c, (n << 2) as u8];
            let [here, there] = [1, 2].map(|i| Ipv4Addr::new(net[0], net[1], net[2], net[3] + i));
            let (name, outer) = (format!("pg{n}"), format!("pgv{n}"));
            if ip(&["netns", "add", &name]).is_err_and(|e| e.contains("exist")) {
                continue;
            }
            let host = Host {
                name,
                outer,
                here,
                there,
            };
            host.lay().unwrap_or_else(|e| {
                panic!(
                    "no network namespace: {e}\nthese tests need root and iproute2 (tests/setup.sh test); \
                     PUSHGATE_TEST_NETNS=skip leaves them out"
                )
            });
            return host;
        }
        panic!("no name is left for a network namespace");
    }

    fn lay(&self) -> Result<(), String> {
        let (name, outer) = (self.name.as_str(), self.outer.as_str());
        let (here, there) = (format!("{}/30", self.here), format!("{}/30", self.there));
        ip(&[
            "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name,
        ])?;
        ip(&["addr", "add", &here, "dev", outer])?;
        ip(&["link", "set", outer, "up"])?;
        ip(&["-n", name, "addr", "add", &there, "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])
    }

    /// Takes the link down, as a cable that is pulled: both ends see it.
    pub fn pull(&self) {
        ip(&["-n", &self.name, "link", "set", "eth0", "down"]).expect("a cable to pull");
    }

    /// Swallows every frame both ways, as a switch that died: no end sees it. Frames go to a machine
    /// that is not there.
    pub fn swallow(&self) {
        let nobody = "02:00:00:00:00:01";
        let (here, there) = (self.here.to_string(), self.there.to_string());
        let neighbour = ["lladdr", nobody, "nud", "permanent", "dev"];
        let ours = [
            &["neigh", "replace", &there],
            &neighbour[..],
            &[&self.outer],
        ]
        .concat();
        ip(&ours).expect("a neighbour");
        let theirs = [
            &["-n", &self.name, "neigh", "replace", &here],
            &neighbour[..],
            &["eth0"],
        ];
        ip(&theirs.concat()).expect("a neighbour");
    }

    /// Bytes that have left for the host.
    pub fn sent(&self) -> u64 {
        let path = format!("/sys/class/net/{}/statistics/tx_bytes", self.outer);
        let text = std::fs::read_to_string(&path).expect("the cable's counters");
        text.trim().parse().expect("a number")
    }

    /// Runs `deed` inside; sockets it makes stay there.
    fn inside<T: Send + 'static>(&self, deed: impl FnOnce() -> T + Send + 'static) -> T {
        let space = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        let thread = std::thread::spawn(move || {
            // SAFETY: setns(2) takes an open descriptor; it moves this thread only, which then ends.
            let rc = unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
            deed()
        });
        thread.join().expect("the deed does not panic")
    }

    /// Listens inside.
    pub fn listen(&self, port: u16) -> TcpListener {
        let at = (self.there, port);
        let listener = self.inside(move || std::net::TcpListener::bind(at).expect("bind inside"));
        listener.set_nonblocking(true).expect("a socket");
        TcpListener::from_std(listener).expect("a runtime")
    }

    /// Connects from inside; `receive` sets SO_RCVBUF in bytes.
    pub fn connect(&self, to: SocketAddr, receive: Option<usize>) -> TcpStream {
        let stream = self.inside(move || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.expect("a socket");
            if let Some(bytes) = receive {
                socket.set_recv_buffer_size(bytes).expect("SO_RCVBUF");
            }
            socket.connect(&to.into()).expect("connect from inside");
            std::net::TcpStream::from(socket)
        });
        stream.set_nonblocking(true).expect("a socket");
        TcpStream::from_std(stream).expect("a runtime")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The cable goes first: a namespace lives on while sockets in it do.
        let _ = ip(&["link", "del", &self.outer]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Runs `ip`.
///
/// Errors: what it says.
fn ip(args: &[&str]) -> Result<(), String> {
    let run = Command::new("ip").args(args).output();
    let output = run.map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", args.join(" "), said.trim()))
}
