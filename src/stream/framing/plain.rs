//! A plain reader of chunked bodies, which shares no code with the state machine.
//!
//! In: the whole body at once. Out: where the message ends. Knows no limits. Source: RFC 9112 §7.1.

/// Reads the whole body at once, without a state machine; returns the end of a legal, complete message.
pub(super) fn plain(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = memchr::memmem::find(&bytes[at..], b"\r\n")?;
        // An extension may hold bytes that are not UTF-8.
        let text = String::from_utf8_lossy(&bytes[at..at + line]);
        let digits = text.split(';').next()?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        at += line + 2;
        if size == 0 {
            // Trailers, one a line, up to the empty line.
            loop {
                let line = memchr::memmem::find(&bytes[at..], b"\r\n")?;
                at += line + 2;
                if line == 0 {
                    return Some(at);
                }
            }
        }
        at = at.checked_add(size)?;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
}
