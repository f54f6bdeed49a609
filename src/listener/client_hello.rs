//! Reads the server name from a ClientHello that passes through, and puts every byte back.
//!
//! In: the first bytes of a TLS connection, in any split. Out: the name, if the ClientHello has one.
//! Parser: crate `tls-parser`. Source: RFC 8446 §4.1.2, §5.1; RFC 6066 §3; FAULTS D31, D32.

use tls_parser::{
    SNIType, TlsExtension, parse_tls_client_hello_extensions, parse_tls_handshake_client_hello,
};
use tokio::io::AsyncReadExt;

use crate::stream::socket::Tcp;

/// Longest ClientHello that is read, in bytes. A ClientHello with post-quantum key shares has about 2 KiB.
const MAX_HELLO: usize = 16 * 1024;
/// Longest fragment of a record, in bytes (RFC 8446 §5.1).
const MAX_FRAGMENT: usize = 16 * 1024;
/// Length of a record's header, in bytes (RFC 8446 §5.1).
const HEADER: usize = 5;

/// The first message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A ClientHello, with the server name it asks for.
    Tls(Option<String>),
    /// Not TLS, or malformed. The node gets the bytes and answers as it likes.
    Other,
}

/// Reads until the server name is known, then puts all bytes back. The caller sets the deadline.
///
/// Errors: the socket failed.
pub async fn read(tcp: &mut Tcp) -> std::io::Result<Hello> {
    let mut bytes = Vec::with_capacity(2048);
    let mut parser = HelloParser::default();
    let hello = loop {
        if let Some(hello) = parser.parse(&bytes) {
            break hello;
        }
        let mut chunk = [0; 2048];
        match tcp.read(&mut chunk).await? {
            0 => break Hello::Other,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    tcp.unread(bytes);
    Ok(hello)
}

/// Parses a ClientHello that arrives in pieces, and looks at each byte once. A client that sends single bytes
/// would otherwise cost 73 µs for each of them, at 30 KB.
#[derive(Debug, Default)]
pub struct HelloParser {
    /// The handshake message so far, without the headers of its records.
    message: Vec<u8>,
    /// Bytes that were looked at.
    parsed: usize,
    /// Bytes that the current record still has.
    left: usize,
}

impl HelloParser {
    /// Parses `bytes`, all that were read so far; `None`: more are needed.
    pub fn parse(&mut self, bytes: &[u8]) -> Option<Hello> {
        loop {
            let rest = bytes.get(self.parsed..).unwrap_or_default();
            if self.left > 0 {
                let n = self.left.min(rest.len());
                self.message.extend_from_slice(&rest[..n]);
                self.parsed += n;
                self.left -= n;
                if let Some(hello) = name_of(&self.message) {
                    return Some(hello);
                }
                if self.left > 0 {
                    return None;
                }
                continue;
            }
            match rest {
                [] | [22] => return None,
                [22, 3, ..] if rest.len() < HEADER => return None,
                [22, 3, _, high, low, ..] => {
                    self.left = usize::from(u16::from_be_bytes([*high, *low]));
                    if self.left == 0 || self.left > MAX_FRAGMENT {
                        return Some(Hello::Other);
                    }
                    self.parsed += HEADER;
                }
                _ => return Some(Hello::Other),
            }
        }
    }
}

/// Finds the name in a handshake message, of which a part may be missing; `None`: more bytes are needed.
fn name_of(message: &[u8]) -> Option<Hello> {
    let [kind, a, b, c, body @ ..] = message else {
        return message
            .first()
            .is_some_and(|k| *k != 1)
            .then_some(Hello::Other);
    };
    let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    if *kind != 1 || length > MAX_HELLO {
        return Some(Hello::Other);
    }
    let body = body.get(..length)?;
    let Ok((_, hello)) = parse_tls_handshake_client_hello(body) else {
        return Some(Hello::Other);
    };
    let Ok((_, extensions)) = parse_tls_client_hello_extensions(hello.ext.unwrap_or_default())
    else {
        return Some(Hello::Other);
    };
    let names = extensions.into_iter().find_map(|e| match e {
        TlsExtension::SNI(names) => Some(names),
        _ => None,
    });
    let name = names
        .into_iter()
        .flatten()
        .find(|(kind, _)| *kind == SNIType::HostName);
    let text = name
        .and_then(|(_, n)| std::str::from_utf8(n).ok())
        .filter(|n| n.is_ascii());
    let bare = text.map(|t| t.strip_suffix('.').unwrap_or(t));
    Some(Hello::Tls(bare.map(str::to_ascii_lowercase)))
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a ClientHello as OpenSSL writes it.
    fn hello(name: Option<&str>) -> Vec<u8> {
        use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream};
        let context = SslContext::builder(SslMethod::tls_client())
            .unwrap()
            .build();
        let mut ssl = Ssl::new(&context).unwrap();
        if let Some(name) = name {
            ssl.set_hostname(name).unwrap();
        }
        struct Sink(Vec<u8>);
        impl std::io::Read for Sink {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::WouldBlock.into())
            }
        }
        impl std::io::Write for Sink {
            fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
                self.0.extend_from_slice(b);
                Ok(b.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut stream = SslStream::new(ssl, Sink(Vec::new())).unwrap();
        let _ = stream.connect();
        stream.get_ref().0.clone()
    }

    /// Cuts the message of `hello` into records of `n` bytes.
    fn in_records(hello: &[u8], n: usize) -> Vec<u8> {
        let record =
            |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
        hello[5..].chunks(n).flat_map(record).collect()
    }

    fn parse(bytes: &[u8]) -> Option<Hello> {
        HelloParser::default().parse(bytes)
    }

    /// Fails if the name depends on the split of records or of reads, or if a byte is taken twice or left out
    /// when the bytes come one by one.
    #[test]
    fn the_name_is_found_in_any_split_and_any_records() {
        let whole = hello(Some("Push1.MyCompany.com"));
        let name = Hello::Tls(Some("push1.mycompany.com".into()));
        for bytes in [
            whole.clone(),
            in_records(&whole, 1),
            in_records(&whole, 100),
        ] {
            let mut parser = HelloParser::default();
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), None, "first {cut} bytes");
                assert_eq!(parser.parse(&bytes[..cut]), None, "byte {cut}");
            }
            assert_eq!(parse(&bytes), Some(name.clone()));
            assert_eq!(parser.parse(&bytes), Some(name.clone()));
        }
        assert_eq!(parse(&hello(None)), Some(Hello::Tls(None)));
    }

    /// Pads the message of `hello` to `length` bytes by an extension (RFC 7685).
    fn padded(hello: &[u8], length: usize) -> Vec<u8> {
        let mut m = hello[9..].to_vec();
        let mut at = 34;
        at += 1 + usize::from(m[at]);
        at += 2 + usize::from(u16::from_be_bytes([m[at], m[at + 1]]));
        at += 1 + usize::from(m[at]);
        let more = length - m.len();
        let extensions = (m.len() - at - 2 + more) as u16;
        m[at..at + 2].copy_from_slice(&extensions.to_be_bytes());
        m.extend([0, 21]);
        m.extend(((more - 4) as u16).to_be_bytes());
        m.resize(length, 0);
        let head = [1, (length >> 16) as u8, (length >> 8) as u8, length as u8];
        [&[0; 5][..], &head, &m].concat()
    }

    /// FAULTS D32. Aim: the limit is exact, also over several records.
    #[test]
    fn sixteen_kib_are_taken_and_no_more() {
        let name = Some("push1.mycompany.com");
        let long = in_records(&padded(&hello(name), MAX_HELLO), 4096);
        assert_eq!(parse(&long[..long.len() - 1]), None);
        assert_eq!(parse(&long), Some(Hello::Tls(name.map(str::to_owned))));
        let over = in_records(&padded(&hello(name), MAX_HELLO + 1), 4096);
        assert_eq!(parse(&over[..9]), Some(Hello::Other));
    }

    #[test]
    fn what_is_no_client_hello_is_passed_on() {
        let mut long = vec![22, 3, 1, 0x40, 0];
        long.extend([1, 0, 0x80, 0]);
        let cases: &[(&str, &[u8])] = &[
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
            ("SSH", b"SSH-2.0-x\r\n"),
            ("SSL 2", &[0x80, 0x2e, 1, 3, 1]),
            ("alert", &[21, 3, 1, 0, 2, 1, 0]),
            ("empty record", &[22, 3, 1, 0, 0]),
            ("oversized record", &[22, 3, 1, 0xff, 0xff, 1]),
            ("other handshake message", &[22, 3, 1, 0, 4, 2, 0, 0, 0]),
            ("over 16 KiB", &long),
            ("garbage inside", &[22, 3, 1, 0, 8, 1, 0, 0, 4, 9, 9, 9, 9]),
        ];
        for (name, bytes) in cases {
            assert_eq!(parse(bytes), Some(Hello::Other), "{name}");
        }
    }
}
