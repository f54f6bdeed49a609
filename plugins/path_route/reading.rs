//! Reads a path as servers do, so that a route goes by what the node will see.
//!
//! In: a path as a client sent it. Out: the path that RFC 3986 reads, and the one that a lenient server reads.
//! Source: RFC 3986 §5.2.4 (dot segments), §6.2.2 (escapes), §3.3 (parameters); Java servers drop `;…`.

use std::borrow::Cow;

/// How a server reads a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Decodes escapes of letters, digits and `-._~`; removes parameters (`;…`) and dot segments.
    Strict,
    /// Also takes `\`, `%2f` and `%5c` for `/`, `%3b` for `;`, and several `/` for one.
    Lenient,
}

/// Returns whether all servers read `path` in the same way, byte for byte.
pub fn is_plain(path: &str) -> bool {
    let pairs = path.as_bytes().windows(2);
    let odd = |pair: &[u8]| pair.first() == Some(&b'/') && matches!(pair.get(1), Some(b'/' | b'.'));
    !path.contains(['%', ';', '\\']) && !pairs.into_iter().any(odd)
}

/// Returns `path` as `reader` reads it. `None`: a dot segment has parameters (`..;x`), which is a step up for
/// some servers and a name for others.
pub fn read(path: &str, reader: Reader) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') || is_plain(path) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decoded(path, reader);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let (name, parameters) = match segment.split_once(';') {
            Some((name, _)) => (name, true),
            None => (segment, false),
        };
        let dots = matches!(name, "." | "..");
        if dots && parameters {
            return None;
        }
        if name == ".." {
            kept.pop();
        }
        match dots || (name.is_empty() && reader == Reader::Lenient) {
            false => kept.push(name),
            // The path ends with a `/` then, as `/a/..` is `/`.
            true if last => kept.push(""),
            true => {}
        }
    }
    Some(Cow::Owned(format!("/{}", kept.join("/"))))
}

fn decoded(path: &str, reader: Reader) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let escape = rest.get(1..3).filter(|_| c == '%');
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let lenient = reader == Reader::Lenient;
        let (read, length) = match byte {
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => (char::from(b), 3),
            Some(b'/' | b'\\') if lenient => ('/', 3),
            Some(b';') if lenient => (';', 3),
            _ if c == '\\' && lenient => ('/', 1),
            _ => (c, c.len_utf8()),
        };
        out.push(read);
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_servers_do() {
        for (path, strict, lenient) in [
            ("*", Some("*"), Some("*")),
            ("/", Some("/"), Some("/")),
            ("/..", Some("/"), Some("/")),
            ("/../../a", Some("/a"), Some("/a")),
            ("/a/./b/../c", Some("/a/c"), Some("/a/c")),
            ("/a/b/..", Some("/a/"), Some("/a/")),
            ("/a/.", Some("/a/"), Some("/a/")),
            ("/a/%2e%2E/%62", Some("/b"), Some("/b")),
            ("/a;x=1/b;y", Some("/a/b"), Some("/a/b")),
            ("/a/..;/b", None, None),
            ("/a/.;x/b", None, None),
            ("/a/..%3b/b", Some("/a/..%3b/b"), None),
            ("/a/..%2fb", Some("/a/..%2fb"), Some("/b")),
            ("/a\\..\\b", Some("/a\\..\\b"), Some("/b")),
            ("//a//b/", Some("//a//b/"), Some("/a/b/")),
            (
                "/a/.well-known",
                Some("/a/.well-known"),
                Some("/a/.well-known"),
            ),
            ("/%", Some("/%"), Some("/%")),
            ("/%2", Some("/%2"), Some("/%2")),
            ("/%zz/%é", Some("/%zz/%é"), Some("/%zz/%é")),
        ] {
            assert_eq!(read(path, Reader::Strict).as_deref(), strict, "{path}");
            assert_eq!(read(path, Reader::Lenient).as_deref(), lenient, "{path}");
        }
    }
}
