//! Reads the server name (SNI) from a ClientHello and normalises it.
//!
//! In: a handshake that has just received its ClientHello. Out: a name to look up, or `None` if the
//! client sent no name that a certificate can cover. Source: RFC 6066 §3.

use std::ffi::{c_uchar, c_uint};
use std::net::IpAddr;

use foreign_types::ForeignTypeRef;
use openssl::ssl::SslRef;

/// Number of the server_name extension (IANA, TLS ExtensionType).
const SERVER_NAME: c_uint = 0;
/// NameType host_name.
const HOST_NAME: u8 = 0;
/// Longest DNS name in text form (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// Number of the extension with the protocols that a client offers (RFC 7301 §3.1).
const PROTOCOLS: c_uint = 16;

/// Returns the normalised server name of the ClientHello that `ssl` is processing. Works only inside
/// the ClientHello callback; elsewhere the result is `None`.
pub(super) fn asked(ssl: &mut SslRef) -> Option<String> {
    normalised(host_name(extension(ssl, SERVER_NAME)?)?)
}

/// Returns the protocols that the client offers, in the format of the extension. Works where [`asked`] does.
pub(super) fn offered(ssl: &mut SslRef) -> Option<&[u8]> {
    extension(ssl, PROTOCOLS)
}

/// Returns an extension of the ClientHello by its number.
fn extension(ssl: &mut SslRef, number: c_uint) -> Option<&[u8]> {
    let mut data: *const c_uchar = std::ptr::null();
    let mut len = 0;
    // SAFETY: `ssl` is a live handshake and both out-pointers are valid. OpenSSL returns 1 only
    // inside the callback. `data` then points at `len` bytes that live until the callback returns, and
    // the result holds `ssl` borrowed until it is used no more.
    unsafe {
        match openssl_sys::SSL_client_hello_get0_ext(ssl.as_ptr(), number, &mut data, &mut len) {
            1 if len > 0 => Some(std::slice::from_raw_parts(data, len)),
            _ => None,
        }
    }
}

/// Returns the host name in a server_name extension, whose list must have exactly one entry. For any
/// other content it returns `None`; OpenSSL itself ends such a handshake with its alert.
fn host_name(extension: &[u8]) -> Option<&[u8]> {
    let (list, entries) = vector(extension)?;
    let (kind, name) = list.split_first()?;
    let (name, rest) = vector(name)?;
    (*kind == HOST_NAME && entries.is_empty() && rest.is_empty()).then_some(name)
}

/// Splits off a vector that begins with its length in two bytes; returns it and the rest.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// Converts `name` to lower case without its trailing dot. `None` if it is an IP address or cannot be
/// a DNS name.
pub(super) fn normalised(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let fit = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.is_ascii();
    let address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    (fit && !address).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(name: &[u8]) -> Vec<u8> {
        let len = name.len() as u16;
        let mut bytes = (len + 3).to_be_bytes().to_vec();
        bytes.push(HOST_NAME);
        bytes.extend(len.to_be_bytes());
        bytes.extend(name);
        bytes
    }

    /// Aim: FAULTS D31. The proxy looks up one well-formed host name, and never an IP address.
    #[test]
    fn names_are_normalised() {
        let long = "a".repeat(300);
        let cases: &[(&str, Option<&str>)] = &[
            ("", None),
            (".", None),
            ("10.0.0.1", None),
            ("::1", None),
            ("[2001:db8::1]", None),
            (&long, None),
            ("pu\u{15f}h.example", None),
            ("push.example", Some("push.example")),
            ("PUSH.Example.", Some("push.example")),
        ];
        for (name, expected) in cases {
            let bytes = sent(name.as_bytes());
            let got = host_name(&bytes).and_then(normalised);
            assert_eq!(got.as_deref(), *expected, "{name}");
        }
    }

    /// Aim: a truncated server_name extension neither panics nor yields part of a name.
    #[test]
    fn broken_extensions_yield_nothing() {
        let whole = sent(b"push.example");
        for cut in 0..whole.len() {
            assert_eq!(host_name(&whole[..cut]), None, "cut at {cut}");
        }
        let mut two = sent(b"a.example");
        two.extend(sent(b"b.example"));
        assert_eq!(host_name(&two), None, "two lists");
        let mut kind = whole.clone();
        kind[2] = 7;
        assert_eq!(host_name(&kind), None, "another kind of name");
    }
}
