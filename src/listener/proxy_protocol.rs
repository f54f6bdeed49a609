//! The PROXY protocol from a balancer in front of us: who the client really is, before all else.
//!
//! In: the first bytes of a connection from a trusted sender. Out: the addresses it announces.
//! Codec: crate `ppp`, which knows both versions and their TLVs; the checksum: crate `crc32c`.
//! Source: PROXY protocol §2 (HAProxy's specification, cited by Lightstreamer clustering §1);
//! FAULTS D38–D41.

use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};
use tokio::io::AsyncReadExt;

use crate::stream::socket::Tcp;

/// Longest header taken: addresses and the TLVs of real balancers need a few hundred bytes.
const MAX_HEADER: usize = 4096;
/// Longest header of version 1, §2.1.
const MAX_V1: usize = 107;
/// What version 2 begins with, §2.2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Source and destination a header announces; `None` where it says to take the connection's own
/// (`LOCAL`, `UNKNOWN`, an address family that is not IP).
pub type Announced = Option<(SocketAddr, SocketAddr)>;

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ended first.
    Closed,
    /// What came is no header.
    NoHeader,
    /// The header contradicts the specification.
    Malformed,
    /// The header's checksum is wrong.
    Checksum,
}

/// Reads the header; what came behind it is put back. The caller sets the deadline.
pub async fn read(tcp: &mut Tcp) -> Result<Announced, Fault> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if let Some((length, announced)) = parse(&bytes)? {
            tcp.unread(bytes.split_off(length));
            return Ok(announced);
        }
        let mut chunk = [0; 512];
        match tcp.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return Err(Fault::Closed),
        }
    }
}

/// The header's length and addresses; `None`: more bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Announced)>, Fault> {
    let n = bytes.len().min(V2.len());
    if bytes[..n] == V2[..n] {
        return if n < V2.len() {
            Ok(None)
        } else {
            parse_v2(bytes)
        };
    }
    let n = bytes.len().min(6);
    if bytes[..n] != b"PROXY "[..n] {
        return Err(Fault::NoHeader);
    }
    match memchr::memmem::find(&bytes[..bytes.len().min(MAX_V1)], b"\r\n") {
        Some(end) => parse_v1(&bytes[..end + 2]).map(|a| Some((end + 2, a))),
        None if bytes.len() >= MAX_V1 => Err(Fault::Malformed),
        None => Ok(None),
    }
}

fn parse_v1(line: &[u8]) -> Result<Announced, Fault> {
    if line == b"PROXY UNKNOWN\r\n" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(None);
    }
    match v1::Header::try_from(line)
        .map_err(|_| Fault::Malformed)?
        .addresses
    {
        v1::Addresses::Unknown => Ok(None),
        v1::Addresses::Tcp4(a) => Ok(Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        ))),
        v1::Addresses::Tcp6(a) => Ok(Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        ))),
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(usize, Announced)>, Fault> {
    if let Some(length) = bytes.get(14..16) {
        let length = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length > MAX_HEADER {
            return Err(Fault::Malformed);
        }
    }
    let parsed = v2::Header::try_from(bytes);
    if parsed.is_incomplete() {
        return Ok(None);
    }
    let header = parsed.map_err(|_| Fault::Malformed)?;
    check_tlvs(&header)?;
    let announced = match (header.command, header.protocol, header.addresses) {
        (v2::Command::Local, _, _) => None,
        (_, v2::Protocol::Datagram, _) => return Err(Fault::Malformed),
        (_, _, v2::Addresses::IPv4(a)) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        (_, _, v2::Addresses::IPv6(a)) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        (_, _, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    };
    Ok(Some((header.len(), announced)))
}

/// Every TLV must lie within the header (§2.2.7), and the checksum, where there is one, must be
/// that of the header with the checksum's own bytes zero (§2.2.3).
fn check_tlvs(header: &v2::Header<'_>) -> Result<(), Fault> {
    let whole = header.as_bytes();
    let tlvs = header.tlv_bytes();
    let mut at = whole.len() - tlvs.len();
    for tlv in header.tlvs() {
        let tlv = tlv.map_err(|_| Fault::Malformed)?;
        if tlv.kind == v2::Type::CRC32C as u8 {
            let given: [u8; 4] = tlv
                .value
                .as_ref()
                .try_into()
                .map_err(|_| Fault::Malformed)?;
            let mut zeroed = whole.to_vec();
            zeroed[at + 3..at + 7].fill(0);
            if crc32c::crc32c(&zeroed) != u32::from_be_bytes(given) {
                return Err(Fault::Checksum);
            }
        }
        at += 3 + tlv.value.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8], tlvs: &[u8]) -> Vec<u8> {
        let mut h = V2.to_vec();
        h.extend([command, family]);
        h.extend(((addresses.len() + tlvs.len()) as u16).to_be_bytes());
        h.extend(addresses);
        h.extend(tlvs);
        h
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 200, 0, 0, 10, 0xc3, 0x50, 0x01, 0xbb];

    /// FAULTS D38–D40.
    #[test]
    fn refused() {
        let long = format!("PROXY TCP4 {} 200.0.0.10 1 2\r\n", "1".repeat(100));
        let cases: Vec<(&str, Vec<u8>, Fault)> = vec![
            (
                "no header",
                b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                Fault::NoHeader,
            ),
            ("TLS", b"\x16\x03\x01\x02\x00".to_vec(), Fault::NoHeader),
            ("v1 too long", long.into_bytes(), Fault::Malformed),
            (
                "v1 bad address",
                b"PROXY TCP4 1.2.3 200.0.0.10 1 2\r\n".to_vec(),
                Fault::Malformed,
            ),
            (
                "v1 port",
                b"PROXY TCP4 1.2.3.4 200.0.0.10 70000 2\r\n".to_vec(),
                Fault::Malformed,
            ),
            (
                "v1 TCP6 in TCP4",
                b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
                Fault::Malformed,
            ),
            (
                "v1 lower case",
                b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
                Fault::Malformed,
            ),
            ("v2 version 1", v2(0x11, 0x11, &V4, &[]), Fault::Malformed),
            ("v2 command", v2(0x25, 0x11, &V4, &[]), Fault::Malformed),
            (
                "v2 short addresses",
                v2(0x21, 0x11, &V4[..8], &[]),
                Fault::Malformed,
            ),
            ("v2 datagram", v2(0x21, 0x12, &V4, &[]), Fault::Malformed),
            (
                "v2 TLV overrun",
                v2(0x21, 0x11, &V4, &[2, 0, 9, b'a']),
                Fault::Malformed,
            ),
            ("v2 TLV cut", v2(0x21, 0x11, &V4, &[2, 0]), Fault::Malformed),
            (
                "v2 checksum",
                v2(0x21, 0x11, &V4, &[3, 0, 4, 1, 2, 3, 4]),
                Fault::Checksum,
            ),
            (
                "v2 checksum size",
                v2(0x21, 0x11, &V4, &[3, 0, 2, 1, 2]),
                Fault::Malformed,
            ),
            (
                "v2 65,535 bytes",
                [V2, &[0x21, 0x11, 0xff, 0xff]].concat(),
                Fault::Malformed,
            ),
        ];
        for (name, bytes, fault) in cases {
            assert_eq!(parse(&bytes), Err(fault), "{name}");
        }
    }

    #[test]
    fn announced() {
        let client: SocketAddr = "192.0.2.1:50000".parse().unwrap();
        let vip: SocketAddr = "200.0.0.10:443".parse().unwrap();
        let mut summed = v2(0x21, 0x11, &V4, &[3, 0, 4, 0, 0, 0, 0]);
        let sum = crc32c::crc32c(&summed).to_be_bytes();
        let at = summed.len() - 4;
        summed[at..].copy_from_slice(&sum);
        let cases: Vec<(&str, Vec<u8>, Announced)> = vec![
            (
                "v1",
                b"PROXY TCP4 192.0.2.1 200.0.0.10 50000 443\r\n".to_vec(),
                Some((client, vip)),
            ),
            ("v1 unknown", b"PROXY UNKNOWN\r\n".to_vec(), None),
            (
                "v1 unknown with addresses",
                b"PROXY UNKNOWN ::1 ::1 1 2\r\n".to_vec(),
                None,
            ),
            ("v2", v2(0x21, 0x11, &V4, &[]), Some((client, vip))),
            (
                "v2 authority",
                v2(0x21, 0x11, &V4, b"\x02\x00\x01a"),
                Some((client, vip)),
            ),
            ("v2 checksum", summed, Some((client, vip))),
            ("v2 LOCAL", v2(0x20, 0x00, &[], &[]), None),
            ("v2 UNSPEC", v2(0x21, 0x00, &[], &[]), None),
            ("v2 UNIX", v2(0x21, 0x31, &[0; 216], &[]), None),
        ];
        for (name, bytes, announced) in cases {
            let with_more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(
                parse(&with_more),
                Ok(Some((bytes.len(), announced))),
                "{name}"
            );
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{name}, first {cut} bytes");
            }
        }
    }
}
