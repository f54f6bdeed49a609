//! Reads the PROXY protocol header that a balancer in front of us sends before the client's first byte.
//!
//! In: the first bytes of a connection from a trusted sender. Out: the addresses it announces, and the facts
//! of the TLS connection that ended there.
//! Codec: crate `ppp`, which knows both versions and their TLVs; the checksum: crate `crc32c`.
//! Source: PROXY protocol §2 (HAProxy's specification, cited by Lightstreamer clustering §1); FAULTS D38–D41.

use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};
use pushgate_plugins::host;
use tokio::io::AsyncReadExt;

use crate::stream::socket::Tcp;

/// Longest header accepted, in bytes. The addresses and TLVs of real balancers need a few hundred.
const MAX_HEADER: usize = 4096;
/// Longest header of version 1, in bytes (§2.1).
const MAX_V1: usize = 107;
/// The signature that begins a header of version 2 (§2.2).
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bit of `PP2_TYPE_SSL`: the client connected by TLS (§2.2.6).
const CLIENT_SSL: u8 = 0x01;
/// Bytes of `PP2_TYPE_SSL` before its nested TLVs.
const SSL_HEAD: usize = 5;
/// Longest name accepted: the limit of a host name.
const MAX_AUTHORITY: usize = 255;

/// The contents of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Source and destination; `None` if the connection's own addresses hold (`LOCAL`, `UNKNOWN`, an address
    /// family other than IP).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The TLS connection that ended at the sender, if the client used TLS.
    pub tls: Option<Tls>,
}

/// A TLS connection that ended at the sender (`PP2_TYPE_SSL`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server name the client asked for (`PP2_TYPE_AUTHORITY`), in lower case; `None` if it is no host
    /// name.
    pub authority: Option<String>,
    /// The version as OpenSSL names it; `TLS` if the header names none that we know.
    pub version: &'static str,
}

impl From<Option<(SocketAddr, SocketAddr)>> for Announced {
    fn from(addresses: Option<(SocketAddr, SocketAddr)>) -> Self {
        Announced {
            addresses,
            tls: None,
        }
    }
}

/// Why no header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolError {
    /// The connection ended before the header did.
    Closed,
    /// The first bytes are not a header.
    NoHeader,
    /// The header contradicts the specification.
    Malformed,
    /// The header's checksum is wrong.
    Checksum,
}

/// Reads the header, and puts back the bytes behind it. The caller sets the deadline.
pub async fn read(tcp: &mut Tcp) -> Result<Announced, ProxyProtocolError> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if let Some((length, announced)) = parse(&bytes)? {
            tcp.unread(bytes.split_off(length));
            return Ok(announced);
        }
        let mut chunk = [0; 512];
        match tcp.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return Err(ProxyProtocolError::Closed),
        }
    }
}

/// Returns the header's length and contents; `None`: more bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Announced)>, ProxyProtocolError> {
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
        return Err(ProxyProtocolError::NoHeader);
    }
    match memchr::memmem::find(&bytes[..bytes.len().min(MAX_V1)], b"\r\n") {
        Some(end) => parse_v1(&bytes[..end + 2]).map(|a| Some((end + 2, a))),
        None if bytes.len() >= MAX_V1 => Err(ProxyProtocolError::Malformed),
        None => Ok(None),
    }
}

fn parse_v1(line: &[u8]) -> Result<Announced, ProxyProtocolError> {
    if line == b"PROXY UNKNOWN\r\n" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(Announced::default());
    }
    let addresses = match v1::Header::try_from(line)
        .map_err(|_| ProxyProtocolError::Malformed)?
        .addresses
    {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(a) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        v1::Addresses::Tcp6(a) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
    };
    Ok(addresses.into())
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(usize, Announced)>, ProxyProtocolError> {
    if let Some(length) = bytes.get(14..16) {
        let length = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length > MAX_HEADER {
            return Err(ProxyProtocolError::Malformed);
        }
    }
    let parsed = v2::Header::try_from(bytes);
    if parsed.is_incomplete() {
        return Ok(None);
    }
    let header = parsed.map_err(|_| ProxyProtocolError::Malformed)?;
    let tls = read_tlvs(&header)?;
    let addresses = match (header.command, header.protocol, header.addresses) {
        (v2::Command::Local, _, _) => None,
        (_, v2::Protocol::Datagram, _) => return Err(ProxyProtocolError::Malformed),
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
    // A LOCAL connection carries no client (§2.2), so its TLVs describe none.
    let tls = tls.filter(|_| header.command == v2::Command::Proxy);
    Ok(Some((header.len(), Announced { addresses, tls })))
}

/// Checks the TLVs, and returns what they say of TLS. Every TLV must lie within the header (§2.2.7). A
/// checksum must be that of the header with the checksum's own bytes zero (§2.2.3).
fn read_tlvs(header: &v2::Header<'_>) -> Result<Option<Tls>, ProxyProtocolError> {
    let (mut authority, mut version) = (None, None);
    let whole = header.as_bytes();
    let tlvs = header.tlv_bytes();
    let mut at = whole.len() - tlvs.len();
    for tlv in header.tlvs() {
        let tlv = tlv.map_err(|_| ProxyProtocolError::Malformed)?;
        if tlv.kind == v2::Type::CRC32C as u8 {
            let given: [u8; 4] = tlv
                .value
                .as_ref()
                .try_into()
                .map_err(|_| ProxyProtocolError::Malformed)?;
            let mut zeroed = whole.to_vec();
            zeroed[at + 3..at + 7].fill(0);
            if crc32c::crc32c(&zeroed) != u32::from_be_bytes(given) {
                return Err(ProxyProtocolError::Checksum);
            }
        }
        if tlv.kind == v2::Type::Authority as u8 {
            authority = name(&tlv.value);
        } else if tlv.kind == v2::Type::SSL as u8 {
            version = ssl(&tlv.value)?;
        }
        at += 3 + tlv.value.len();
    }
    Ok(version.map(|version| Tls { authority, version }))
}

/// Decodes a host name, without port and last dot; UTF-8 becomes `xn--…` (§2.2.2 names UTF-8). Anything else is
/// no name: it is left out, because plugins route by the name and the log shows it. It does not end the
/// connection, because a header that announces addresses is whole without it.
fn name(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let text = host::normalise(text);
    let text = host::to_ascii(&text);
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let fits = (1..=MAX_AUTHORITY).contains(&text.len()) && text.bytes().all(legal);
    fits.then(|| text.to_ascii_lowercase())
}

/// Returns the version in a `PP2_TYPE_SSL`; `None`: the client did not use TLS.
fn ssl(value: &[u8]) -> Result<Option<&'static str>, ProxyProtocolError> {
    let (head, mut rest) = value
        .split_at_checked(SSL_HEAD)
        .ok_or(ProxyProtocolError::Malformed)?;
    let mut version = "TLS";
    while !rest.is_empty() {
        let [kind, high, low, more @ ..] = rest else {
            return Err(ProxyProtocolError::Malformed);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (text, after) = more
            .split_at_checked(length)
            .ok_or(ProxyProtocolError::Malformed)?;
        if *kind == v2::Type::SSLVersion as u8 {
            let known = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
            let known = known.into_iter().find(|v| v.as_bytes() == text);
            version = known.unwrap_or(version);
        }
        rest = after;
    }
    Ok((head[0] & CLIENT_SSL != 0).then_some(version))
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests;
