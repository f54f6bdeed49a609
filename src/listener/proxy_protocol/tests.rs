//! Headers that are accepted and headers that are refused, split at every byte.
//! Source: the PROXY protocol's specification §2; FAULTS D38–D41.

use super::ProxyProtocolError as E;
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
    let cases: Vec<(&str, Vec<u8>, E)> = vec![
        ("no header", b"GET / HTTP/1.1\r\n\r\n".to_vec(), E::NoHeader),
        ("TLS", b"\x16\x03\x01\x02\x00".to_vec(), E::NoHeader),
        ("v1 too long", long.into_bytes(), E::Malformed),
        (
            "v1 bad address",
            b"PROXY TCP4 1.2.3 200.0.0.10 1 2\r\n".to_vec(),
            E::Malformed,
        ),
        (
            "v1 port",
            b"PROXY TCP4 1.2.3.4 200.0.0.10 70000 2\r\n".to_vec(),
            E::Malformed,
        ),
        (
            "v1 TCP6 in TCP4",
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            E::Malformed,
        ),
        (
            "v1 lower case",
            b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            E::Malformed,
        ),
        ("v2 version 1", v2(0x11, 0x11, &V4, &[]), E::Malformed),
        ("v2 command", v2(0x25, 0x11, &V4, &[]), E::Malformed),
        (
            "v2 short addresses",
            v2(0x21, 0x11, &V4[..8], &[]),
            E::Malformed,
        ),
        ("v2 datagram", v2(0x21, 0x12, &V4, &[]), E::Malformed),
        (
            "v2 TLV overrun",
            v2(0x21, 0x11, &V4, &[2, 0, 9, b'a']),
            E::Malformed,
        ),
        ("v2 TLV cut", v2(0x21, 0x11, &V4, &[2, 0]), E::Malformed),
        (
            "v2 checksum",
            v2(0x21, 0x11, &V4, &[3, 0, 4, 1, 2, 3, 4]),
            E::Checksum,
        ),
        (
            "v2 checksum size",
            v2(0x21, 0x11, &V4, &[3, 0, 2, 1, 2]),
            E::Malformed,
        ),
        (
            "v2 65,535 bytes",
            [V2, &[0x21, 0x11, 0xff, 0xff]].concat(),
            E::Malformed,
        ),
    ];
    for (name, bytes, fault) in cases {
        assert_eq!(parse(&bytes), Err(fault), "{name}");
    }
}

/// FAULTS D40. Aim: the TLVs about TLS must be whole.
#[test]
fn refused_of_tls() {
    let cases: Vec<(&str, Vec<u8>, E)> = vec![
        (
            "v2 SSL too short",
            v2(0x21, 0x11, &V4, &[0x20, 0, 4, 1, 0, 0, 0]),
            E::Malformed,
        ),
        (
            "v2 SSL's own TLV overrun",
            v2(0x21, 0x11, &V4, &[0x20, 0, 8, 1, 0, 0, 0, 0, 0x21, 0, 9]),
            E::Malformed,
        ),
    ];
    for (name, bytes, fault) in cases {
        assert_eq!(parse(&bytes), Err(fault), "{name}");
    }
}

/// §2.2: a receiver skips what it does not know. Aim: an authority that is no host name is left out, and the
/// connection goes on; one with port, last dot or UTF-8 is taken in the form that clients send. Fails if an
/// optional TLV ends a connection.
#[test]
fn an_authority_in_any_form() {
    let long = "a".repeat(256);
    for (sent, expected) in [
        ("", None),
        (":443", None),
        ("a\r\nb", None),
        ("push.x\0", None),
        ("[2001:db8::1]", None),
        ("[2001:db8::1]:8080", None),
        (&long, None),
        ("Push.x", Some("push.x")),
        ("push.x.", Some("push.x")),
        ("push.x:443", Some("push.x")),
        ("b\u{fc}cher.example", Some("xn--bcher-kva.example")),
    ] {
        let length = (sent.len() as u16).to_be_bytes();
        let ssl = [0x20, 0, 5, 1, 0, 0, 0, 0];
        let tlvs = [&[2][..], &length, sent.as_bytes(), &ssl].concat();
        let parsed = parse(&v2(0x21, 0x11, &V4, &tlvs)).expect(sent).expect(sent);
        let tls = parsed.1.tls.expect("told of TLS");
        assert_eq!(tls.authority.as_deref(), expected, "{sent:?}");
    }
}

/// Source and destination of a header.
type Addresses = Option<(SocketAddr, SocketAddr)>;

#[test]
fn announced() {
    let client: SocketAddr = "192.0.2.1:50000".parse().unwrap();
    let vip: SocketAddr = "200.0.0.10:443".parse().unwrap();
    let mut summed = v2(0x21, 0x11, &V4, &[3, 0, 4, 0, 0, 0, 0]);
    let sum = crc32c::crc32c(&summed).to_be_bytes();
    let at = summed.len() - 4;
    summed[at..].copy_from_slice(&sum);
    let cases: Vec<(&str, Vec<u8>, Addresses)> = vec![
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
            Ok(Some((bytes.len(), announced.into()))),
            "{name}"
        );
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{name}, first {cut} bytes");
        }
    }
}
/// §2.2.6. Aim: a header's TLS facts are read, and only if the client used TLS.
#[test]
fn tls_in_front() {
    const NAME: &[u8] = b"\x02\x00\x06Push.x";
    let ssl = |client: u8, version: &[u8]| {
        let length = [0, 5 + 3 + version.len() as u8];
        let head = [client, 0, 0, 0, 1, 0x21, 0, version.len() as u8];
        [&[0x20], &length[..], &head[..], version].concat()
    };
    let told = |authority: Option<&str>, version| {
        let authority = authority.map(str::to_owned);
        Some(Tls { authority, version })
    };
    for (name, command, tlvs, expected) in [
        ("authority alone", 0x21, NAME.to_vec(), None),
        ("not by TLS", 0x21, ssl(0, b"TLSv1.3"), None),
        ("LOCAL", 0x20, ssl(1, b"TLSv1.3"), None),
        ("no name", 0x21, ssl(1, b"TLSv1.3"), told(None, "TLSv1.3")),
        ("unknown version", 0x21, ssl(1, b"TLSv9"), told(None, "TLS")),
        (
            "both",
            0x21,
            [NAME, &ssl(1, b"TLSv1.2")].concat(),
            told(Some("push.x"), "TLSv1.2"),
        ),
    ] {
        let parsed = parse(&v2(command, 0x11, &V4, &tlvs)).expect(name);
        assert_eq!(parsed.expect(name).1.tls, expected, "{name}");
    }
}
