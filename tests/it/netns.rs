//! A host in its own network namespace, behind a cable (a veth pair) that a test can cut, or make drop every
//! frame silently.
//!
//! In: nothing. Out: two addresses, sockets inside, and the cable's faults. Needs root and `ip` of iproute2,
//! as in CI. Without them the tests fail with a message, unless PUSHGATE_TEST_NETNS=skip skips them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpListener, TcpStream};

/// A host behind a cable; dropping it removes both.
pub struct Host {
    name: String,
    outer: String,
    /// Our end of the cable.
    pub here: Ipv4Addr,
    /// The host's end.
    pub there: Ipv4Addr,
}

/// Whether these tests are skipped; a skip is printed on standard error.
pub fn skipped() -> bool {
    let skip = std::env::var_os("PUSHGATE_TEST_NETNS").is_some_and(|v| v == "skip");
    if skip {
        eprintln!("skipped by PUSHGATE_TEST_NETNS=skip: this test needs network namespaces");
    }
    skip
}

impl Host {
    /// Creates a host with a cable to it.
    pub fn new() -> Host {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..512 {
            let n = std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
            // 198.18.0.0/15 is for tests of networks (RFC 2544); each cable gets a /30.
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
                     set PUSHGATE_TEST_NETNS=skip to skip them"
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

    /// Takes the link down, like a pulled cable: both ends notice.
    pub fn pull(&self) {
        ip(&["-n", &self.name, "link", "set", "eth0", "down"]).expect("a cable to pull");
    }

    /// Drops every frame both ways, like a dead switch: neither end notices. Frames go to a machine that does
    /// not exist.
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

    /// Lets 64 kbit/s pass towards the host, like a bad mobile line.
    pub fn slow_down(&self) {
        let rate = ["tbf", "rate", "64kbit", "burst", "4kb", "limit", "16kb"];
        let args = [&["qdisc", "add", "dev", &self.outer, "root"], &rate[..]].concat();
        run("tc", &args).expect("a slow cable");
    }

    /// Captures every packet that leaves for the host from now on.
    pub fn watch(&self) -> Packets {
        let socket = socket2::Socket::new(
            socket2::Domain::PACKET,
            socket2::Type::DGRAM,
            Some(i32::from((libc::ETH_P_ALL as u16).to_be()).into()),
        );
        let socket = socket.expect("a packet socket: these tests run as root");
        socket.set_nonblocking(true).expect("a socket");
        let name = std::ffi::CString::new(self.outer.as_str()).expect("a name");
        // SAFETY: an all-zero sockaddr_ll is a valid one, and `name` ends in a zero byte.
        let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        at.sll_family = libc::AF_PACKET as u16;
        at.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: as above.
        at.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the descriptor is open and the address is one sockaddr_ll.
        let rc = unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), size) };
        assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
        Packets(socket, self.there)
    }

    /// Limits processes inside to `ports` local ports, from 40,000, for connections to one address.
    pub fn leave_ports(&self, ports: u16) {
        let range = format!("40000 {}", 39_999 + ports);
        let path = "/proc/sys/net/ipv4/ip_local_port_range";
        let written = self.inside(move || std::fs::write(path, range));
        written.expect("a range of ports");
    }

    /// Makes the kernel inside forget a connection so many seconds after its program has closed it.
    pub fn forget_closed_after(&self, seconds: u8) {
        let path = "/proc/sys/net/ipv4/tcp_fin_timeout";
        let written = self.inside(move || std::fs::write(path, seconds.to_string()));
        written.expect("a timeout");
    }

    /// Runs `deed` inside; sockets and processes that it creates stay there.
    pub fn inside<T: Send + 'static>(&self, deed: impl FnOnce() -> T + Send + 'static) -> T {
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

/// Packets that leave for a host of that address.
pub struct Packets(socket2::Socket, Ipv4Addr);

impl Packets {
    /// Bytes of TCP payload that have left for each port since the last call; 0 for SYN, FIN or RST alone.
    pub fn payload(&mut self) -> BTreeMap<u16, usize> {
        let mut seen = BTreeMap::new();
        // One packet of the cable, or several that a network card would have split.
        let mut packet = vec![0; 65_536];
        while let Ok(n) = std::io::Read::read(&mut self.0, &mut packet) {
            if let Some((port, bytes)) = tcp_payload(&packet[..n], self.1) {
                *seen.entry(port).or_default() += bytes;
            }
        }
        seen
    }
}

/// Port and bytes of an IPv4 packet, if it is TCP for `host` (RFC 791 §3.1, RFC 9293 §3.1).
fn tcp_payload(packet: &[u8], host: Ipv4Addr) -> Option<(u16, usize)> {
    let pair = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let ip = usize::from(packet.first()? & 15) * 4;
    let tcp = packet[0] >> 4 == 4 && *packet.get(9)? == libc::IPPROTO_TCP as u8;
    if !tcp || packet.get(16..20)? != host.octets() {
        return None;
    }
    let header = usize::from(packet.get(ip + 12)? >> 4) * 4;
    Some((
        pair(ip + 2)?,
        usize::from(pair(2)?).checked_sub(ip + header)?,
    ))
}

impl Drop for Host {
    fn drop(&mut self) {
        // The cable first: a namespace lives on while it has sockets.
        let _ = ip(&["link", "del", &self.outer]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Runs `ip`.
///
/// Errors: the message of `ip`.
fn ip(args: &[&str]) -> Result<(), String> {
    run("ip", args)
}

/// Runs a program of iproute2.
///
/// Errors: its message.
fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let run = Command::new(program).args(args).output();
    let output = run.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", args.join(" "), said.trim()))
}
