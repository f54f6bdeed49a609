//! Gives each test its own block of loopback addresses, so that it can bind the guide's real ports.
//!
//! In: nothing. Out: a [`Block`] that maps the guide's addresses: 200.0.0.N → 127.A.200.N and 10.0.0.N →
//! 127.A.10.N. If ports below 1024 must not be bound, 80 becomes 8080, 443 becomes 8443 and 444 becomes 8444.
//! Source: Lightstreamer clustering §2, §3 (tables of addresses).

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A claimed value of A in 127.A.x.y; no other test or test run uses it while this value lives.
pub struct Block {
    a: u8,
    _claim: TcpListener,
}

impl Block {
    /// Claims a free block. The search starts at a value made of process id and counter, so that two runs on
    /// one machine seldom try the same; the bound claim port decides.
    pub fn claim() -> Block {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..254 {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let a = 1 + (std::process::id().wrapping_mul(37).wrapping_add(n) % 254) as u8;
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, a, 255, 254), CLAIM_PORT)) {
                return Block { a, _claim: claim };
            }
        }
        panic!("all 254 loopback blocks are claimed");
    }

    /// The loopback address for one of the guide's, such as `200.0.0.10` or `10.0.0.1`.
    pub fn ip(&self, guide: &str) -> Ipv4Addr {
        let guide: Ipv4Addr = guide.parse().expect("an address of the guide");
        let [net, _, _, host] = guide.octets();
        Ipv4Addr::new(127, self.a, net, host)
    }

    /// The loopback address and port for one of the guide's, such as `200.0.0.10:80`.
    pub fn at(&self, guide: &str) -> SocketAddr {
        let guide: SocketAddr = guide.parse().expect("an address and port of the guide");
        (self.ip(&guide.ip().to_string()), port(guide.port())).into()
    }

    /// An address that no table of the guide uses, for clients with their own source address (`n` from 1).
    pub fn client(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.a, 1, n)
    }

    /// Address of the edge's admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        (Ipv4Addr::new(127, self.a, 0, 1), 9900).into()
    }

    /// Maps a configuration with the guide's addresses and ports.
    pub fn map(&self, yaml: &str) -> String {
        let mut out = String::with_capacity(yaml.len());
        for line in yaml.lines() {
            let line = line
                .replace("200.0.0.", &format!("127.{}.200.", self.a))
                .replace("10.0.0.", &format!("127.{}.10.", self.a))
                .replace("127.0.0.1:9900", &self.admin().to_string());
            out.push_str(&map_ports(&line));
            out.push('\n');
        }
        out
    }
}

/// The port that replaces one of the guide's.
pub fn port(guide: u16) -> u16 {
    static PRIVILEGED: OnceLock<bool> = OnceLock::new();
    let privileged = PRIVILEGED.get_or_init(|| {
        TcpListener::bind((Ipv4Addr::new(127, 255, 255, 253), CLAIM_PRIVILEGED)).is_ok()
    });
    match guide {
        80 | 443 | 444 if !privileged => 8000 + guide % 1000,
        other => other,
    }
}

/// Replaces the ports of addresses (`:80`, `:443`, `:444` at the end of a number) in one line.
fn map_ports(line: &str) -> String {
    let mut out = line.to_owned();
    for guide in [80u16, 443, 444] {
        let mapped = port(guide);
        if mapped == guide {
            continue;
        }
        let (from, to) = (format!(":{guide}"), format!(":{mapped}"));
        for end in [" ", "]", ",", "\"", ":"] {
            out = out.replace(&format!("{from}{end}"), &format!("{to}{end}"));
        }
        if let Some(head) = out.strip_suffix(&from) {
            out = format!("{head}{to}");
        }
    }
    out
}

/// Bound to claim a block; nothing else listens there.
const CLAIM_PORT: u16 = 61_999;
/// A port below 1024 that no test uses, to find out whether such ports may be bound.
const CLAIM_PRIVILEGED: u16 = 79;
