//! Compares names of headers as servers do that map them to variables.
//!
//! In: a name as a client wrote it. Out: whether a server may take it for a name that only the edge writes.
//! CGI gateways write `X-Real-IP`, `X_Real_IP` and `X.Real.IP` into one variable; some do so with every
//! character that is neither letter nor digit.
//! Source: RFC 3875 §4.1.18; FAULTS D14, D15.

/// Returns whether a server may read `name` as `ours`.
pub fn same(name: &[u8], ours: &[u8]) -> bool {
    name.len() == ours.len() && begins(name, ours)
}

/// Returns whether a server may read the beginning of `name` as `ours`.
pub fn begins(name: &[u8], ours: &[u8]) -> bool {
    let start = name.get(..ours.len());
    start.is_some_and(|start| {
        start
            .iter()
            .zip(ours)
            .all(|(a, b)| folded(*a) == folded(*b))
    })
}

/// Returns whether `name` is one of the headers in which a proxy passes on a client's address, host or scheme:
/// `Forwarded`, `X-Forwarded-*`, `X-Real-IP`.
pub fn is_forwarding(name: &[u8]) -> bool {
    match name.first() {
        Some(b'f' | b'F') => same(name, b"forwarded"),
        Some(b'x' | b'X') => begins(name, b"x-forwarded") || same(name, b"x-real-ip"),
        _ => false,
    }
}

fn folded(b: u8) -> u8 {
    match b.is_ascii_alphanumeric() {
        true => b.to_ascii_lowercase(),
        false => b'-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a spelling that lighttpd or PHP maps to our variable passes.
    #[test]
    fn every_spelling_is_recognised() {
        for (name, forwarding) in [
            ("", false),
            ("Accept", false),
            ("X-Forward", false),
            ("X-Real-IPs", false),
            ("Forwarded-For", false),
            ("XForwarded-For", false),
            ("forwarded", true),
            ("X-Forwarded", true),
            ("X_Forwarded_For", true),
            ("x.forwarded-proto", true),
            ("X-Real.IP", true),
            ("X~Real!IP", true),
        ] {
            assert_eq!(is_forwarding(name.as_bytes()), forwarding, "{name}");
        }
        assert!(begins(b"x-ssl.client-verify", b"x_ssl_client"));
        assert!(!begins(b"x-ssl", b"x_ssl_client"));
    }
}
