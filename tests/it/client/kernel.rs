//! Asks the kernel about a single connection.
//!
//! In: its two addresses. Out: unread bytes. The table of all connections, `/proc/net/tcp`, took 0.3 s with
//! 85,000 lines, which a few tests leave behind. Source: sock_diag(7).

use std::io::{Read, Write};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// From `linux/netlink.h`, `linux/sock_diag.h` and `net/tcp_states.h`.
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const LISTEN: u8 = 10;
/// Offsets of `state` and `idiag_rqueue` in an answer, after a header of 16 bytes.
const STATE: usize = 16 + 1;
const UNREAD: usize = 16 + 56;

/// Bytes from `from` that the socket at `to` has not read; `None`: no such connection.
pub fn unread(to: SocketAddr, from: SocketAddr) -> Option<u32> {
    let (family, kind) = (Domain::from(libc::AF_NETLINK), Type::DGRAM);
    let protocol = Protocol::from(NETLINK_SOCK_DIAG);
    let mut kernel = Socket::new(family, kind, Some(protocol)).expect("a netlink socket");
    kernel.write_all(&question(to, from)).expect("a question");
    let mut answer = [0; 4096];
    let n = kernel.read(&mut answer).expect("an answer");
    let is_socket = answer[4..6] == SOCK_DIAG_BY_FAMILY.to_ne_bytes() && n >= UNREAD + 4;
    // If the connection is gone, the kernel describes its listener instead.
    (is_socket && answer[STATE] != LISTEN).then(|| {
        let unread = &answer[UNREAD..UNREAD + 4];
        u32::from_ne_bytes(unread.try_into().expect("four bytes"))
    })
}

/// A header, and an `inet_diag_req_v2` for the one socket between the two addresses.
fn question(to: SocketAddr, from: SocketAddr) -> Vec<u8> {
    let mut ask = vec![libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0];
    ask.extend([0xff; 4]);
    ask.extend(to.port().to_be_bytes());
    ask.extend(from.port().to_be_bytes());
    for address in [to, from] {
        let SocketAddr::V4(v4) = address else {
            panic!("{address}: only IPv4 is asked for");
        };
        ask.extend(v4.ip().octets());
        ask.extend([0; 12]);
    }
    // Any interface, any cookie.
    ask.extend([0; 4]);
    ask.extend([0xff; 8]);
    let mut question = (16 + ask.len() as u32).to_ne_bytes().to_vec();
    question.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    question.extend(NLM_F_REQUEST.to_ne_bytes());
    question.extend([0; 8]);
    question.extend(ask);
    question
}
