//! The server name a client asks for, read from its ClientHello and brought into one form.
//!
//! In: a handshake that has just received its ClientHello. Out: a name to look up, or `None` where
//! the client gave none that could match. Source: RFC 6066 §3.

use std::net::IpAddr;

use foreign_types::ForeignTypeRef;
use openssl::ssl::SslRef;

/// Number of the server_name extension (IANA, TLS ExtensionType).
const SERVER_NAME: libc::c_uint = 0;
/// NameType host_name.
const HOST_NAME: u8 = 0;
/// Longest DNS name in text form (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// The server name of the ClientHello `ssl` is processing, normalised; to be called inside the
/// ClientHello callback only (elsewhere it is `None`).
pub(super) fn asked(ssl: &mut SslRef) -> Option<String> {
    let mut data: *const libc::c_uchar = std::ptr::null();
    let mut len: libc::size_t = 0;
    // SAFETY: `ssl` is a live handshake and both out-pointers are valid. OpenSSL answers 1 only
    // inside the callback and with `data` pointing at `len` bytes that live until it returns.
    let extension = unsafe {
        match openssl_sys::SSL_client_hello_get0_ext(ssl.as_ptr(), SERVER_NAME, &mut data, &mut len)
        {
            1 if len > 0 => std::slice::from_raw_parts(data, len),
            _ => return None,
        }
    };
    normalised(host_name(extension)?)
}

/// The host name in the bytes of a server_name extension: a list with one entry. Whatever else
/// is in there is `None` here; OpenSSL itself ends such a handshake with its alert.
fn host_name(extension: &[u8]) -> Option<&[u8]> {
    let (list, entries) = vector(extension)?;
    let (kind, name) = list.split_first()?;
    let (name, rest) = vector(name)?;
    (*kind == HOST_NAME && entries.is_empty() && rest.is_empty()).then_some(name)
}

/// Splits off a vector with a two-byte length in front.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// Lower case without the trailing dot; `None` for an address or what cannot be a DNS name.
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

    fn extension(name: &[u8]) -> Vec<u8> {
        let len = name.len() as u16;
        let mut bytes = (len + 3).to_be_bytes().to_vec();
        bytes.push(HOST_NAME);
        bytes.extend(len.to_be_bytes());
        bytes.extend(name);
        bytes
    }

    /// Aim: FAULTS D31. Only one well-formed host name is looked up; addresses never are.
    #[test]
    fn names_are_brought_into_one_form() {
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
            let bytes = extension(name.as_bytes());
            let got = host_name(&bytes).and_then(normalised);
            assert_eq!(got.as_deref(), *expected, "{name}");
        }
    }

    /// Aim: no slice of a server_name extension can panic us or yield half a name.
    #[test]
    fn broken_extensions_yield_nothing() {
        let whole = extension(b"push.example");
        for cut in 0..whole.len() {
            assert_eq!(host_name(&whole[..cut]), None, "cut at {cut}");
        }
        let mut two = extension(b"a.example");
        two.extend(extension(b"b.example"));
        assert_eq!(host_name(&two), None, "two lists");
        let mut kind = whole.clone();
        kind[2] = 7;
        assert_eq!(host_name(&kind), None, "another kind of name");
    }
}
