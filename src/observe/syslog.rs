//! Sends log lines to a syslog server, each as one message.
//!
//! In: whole lines. Out: datagrams to a socket of this machine or to a UDP port. A server that is away is tried again
//! with the next line. Source: RFC 5424 §6; RFC 5426 §3.1.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::datagrams::Datagrams;
use crate::clock;
use crate::config::Syslog;

/// Facility `local0` (16) and severity `info` (6): 8 × 16 + 6.
const PRIORITY: u8 = 134;

/// The way to a server.
pub struct Sender {
    to: Syslog,
    datagrams: Datagrams<Socket>,
    /// Host, program and process of each message.
    origin: String,
}

enum Socket {
    Local(UnixDatagram),
    Udp(UdpSocket),
}

impl Socket {
    fn open(to: &Syslog) -> io::Result<Socket> {
        match to {
            Syslog::Local(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Socket::Local(socket))
            }
            Syslog::Udp(to) => {
                let from: SocketAddr = match to {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(from)?;
                socket.connect(to)?;
                Ok(Socket::Udp(socket))
            }
        }
    }

    fn send(&self, message: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Local(local) => local.send(message),
            Socket::Udp(udp) => udp.send(message),
        }
    }
}

impl Sender {
    /// Makes the way to `to`. The server may be away.
    pub fn new(to: Syslog) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
        let host = host.ok().map(|name| name.trim().to_owned());
        let host = host
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "-".into());
        Sender {
            to,
            datagrams: Datagrams::default(),
            origin: format!("{host} pushgate {}", std::process::id()),
        }
    }
}

impl Write for Sender {
    /// Sends the whole line as one message, tried twice.
    ///
    /// Errors: those of the system, also for a line that no datagram can hold.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let date = humantime::format_rfc3339_millis(clock::wall());
        let head = format!("<{PRIORITY}>1 {date} {} access - ", self.origin);
        let message = [head.as_bytes(), line.trim_ascii_end()].concat();
        let open = || Socket::open(&self.to);
        self.datagrams.send(open, |socket| socket.send(&message))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: each line is one message of RFC 5424, over both ways, and a server that was restarted gets the next line.
    /// Fails if the old socket is kept, or if the line feed is sent.
    #[test]
    fn each_line_is_a_message() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        let mut server = UnixDatagram::bind(&path).expect("a socket");
        let mut sender = Sender::new(Syslog::Local(path.clone()));
        let check = |got: &[u8]| {
            let got = String::from_utf8_lossy(got).into_owned();
            let fields: Vec<&str> = got.splitn(8, ' ').collect();
            assert_eq!((fields[0], fields[3]), ("<134>1", "pushgate"), "{got}");
            assert_eq!(fields[4], std::process::id().to_string());
            assert_eq!(fields[5..], ["access", "-", "{\"a\":\"b c\"}"], "{got}");
            assert!(humantime::parse_rfc3339(fields[1]).is_ok(), "{got}");
        };
        let mut got = [0; 1024];
        for _ in 0..2 {
            assert_eq!(sender.write(b"{\"a\":\"b c\"}\n").expect("sent"), 12);
            let n = server.recv(&mut got).expect("a message");
            check(&got[..n]);
            std::fs::remove_file(&path).expect("the socket's file");
            server = UnixDatagram::bind(&path).expect("a socket");
        }
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let to = udp.local_addr().expect("bound");
        let sent = Sender::new(Syslog::Udp(to)).write(b"{\"a\":\"b c\"}\n");
        assert_eq!(sent.expect("sent"), 12);
        let n = udp.recv(&mut got).expect("a message");
        check(&got[..n]);
    }
}
