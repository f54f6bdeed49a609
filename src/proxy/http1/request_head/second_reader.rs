//! A second reader of request heads, which shares no code with [`judge`](super::judge).
//!
//! In: the bytes of one head. Out: the framing of its body, or `None` for an illegal head. Knows no limits and no
//! rules of routing. Source: RFC 9112 §2.2, §3, §5, §6.3; RFC 9110 §5.6.2.

use crate::stream::framing::Framing;

/// The second reader: returns the framing of the body; `None`: the head is illegal.
pub(super) fn strict(head: &[u8]) -> Option<Framing> {
    let text = head.strip_suffix(b"\r\n\r\n")?;
    let lines: Vec<&[u8]> = split(text);
    let (first, fields) = lines.split_first()?;
    let words: Vec<&[u8]> = first.split(|b| *b == b' ').collect();
    let [method, target, version] = words[..] else {
        return None;
    };
    let token = |t: &[u8]| {
        !t.is_empty()
            && t.iter()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
    };
    let modern = version == b"HTTP/1.1";
    if !token(method) || target.is_empty() || !(modern || version == b"HTTP/1.0") {
        return None;
    }
    // RFC 3986 allows no bytes beyond ASCII in a URI, but old browsers send them. They must be UTF-8.
    let legible = std::str::from_utf8(target).is_ok();
    if !legible || target.iter().any(|b| *b <= b' ' || *b == 0x7f) {
        return None;
    }
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for field in fields {
        let colon = field.iter().position(|b| *b == b':')?;
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        let legal = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
        if !token(name) || !value.iter().all(legal) {
            return None;
        }
        let blank = |b: &u8| *b == b' ' || *b == b'\t';
        let from = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
        let to = value
            .iter()
            .rposition(|b| !blank(b))
            .map_or(from, |i| i + 1);
        match name.to_ascii_lowercase().as_slice() {
            b"content-length" => lengths.push(&value[from..to]),
            b"transfer-encoding" => codings.push(value[from..to].to_ascii_lowercase()),
            b"host" => hosts += 1,
            _ => {}
        }
    }
    if hosts > 1 || (modern && hosts == 0) {
        return None;
    }
    match (&lengths[..], &codings[..]) {
        ([], []) => Some(Framing::Done),
        ([n], []) if !n.is_empty() && n.iter().all(u8::is_ascii_digit) => {
            let n = String::from_utf8_lossy(n).parse().ok()?;
            Some(Framing::length(n))
        }
        ([], [coding]) if modern && coding == b"chunked" => Some(Framing::chunked()),
        _ => None,
    }
}

/// Splits at CRLF only. A bare CR or LF stays in its line, where it is illegal.
fn split(text: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut from) = (Vec::new(), 0);
    while let Some(at) = text[from..].windows(2).position(|w| w == b"\r\n") {
        lines.push(&text[from..from + at]);
        from += at + 2;
    }
    lines.push(&text[from..]);
    lines
}
