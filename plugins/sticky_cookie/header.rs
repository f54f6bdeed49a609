//! Edits the cookie's headers byte by byte: `Cookie` in requests, `Set-Cookie` and `Cache-Control` in
//! responses.
//!
//! In: heads and the cookie's name. Out: heads in which every other cookie keeps its bytes. HTTP/2 clients
//! may send one cookie a line (RFC 9113 §8.2.3).
//! Source: FAULTS D45, RFC 6265 §4, §5.

use crate::api::EditError;
use crate::head::{Edit, Edits, Head};

/// Returns the values of all cookies called `name`, in order.
pub fn values<'a>(head: &'a Head, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    head.values("cookie")
        .flat_map(|line| line.split(|b| *b == b';'))
        .filter_map(move |pair| value_of(pair, name))
}

/// Removes every cookie called `name` from the request. Drops a line that becomes empty; leaves a line
/// without the cookie untouched.
pub fn strip(edits: &mut Edits, name: &[u8]) -> Result<(), EditError> {
    edits.rewrite("cookie", |line| match without(line, name) {
        None => Edit::Keep,
        Some(rest) if rest.is_empty() => Edit::Drop,
        Some(rest) => Edit::Set(rest),
    })?;
    Ok(())
}

/// Removes every `Set-Cookie` of `name` from the response. In the client the node's cookie would overwrite ours,
/// and it would never come back to the node: the edge strips that name from requests.
pub fn drop_set_cookie(edits: &mut Edits, name: &[u8]) {
    let ours = |line: &[u8]| {
        let pair = line.split(|b| *b == b';').next();
        pair.is_some_and(|p| value_of(p, name).is_some())
    };
    edits.retain(|field, line| !(field.eq_ignore_ascii_case("set-cookie") && ours(line)));
}

/// Keeps shared caches from giving one client's assignment to others: adds `private` unless the response has
/// `private` or `no-store`. It adds a line, so that the node's own lines stay unchanged. If lines conflict, caches
/// follow the stricter one (RFC 9111 §4.2.1).
pub fn forbid_sharing(edits: &mut Edits) -> Result<(), EditError> {
    // `private="field"` covers only that field, so only the bare word counts.
    let enough = |d: &[u8]| {
        let d = d.trim_ascii();
        d.eq_ignore_ascii_case(b"private") || d.eq_ignore_ascii_case(b"no-store")
    };
    let mut lines = edits.values("cache-control");
    if !lines.any(|l| l.split(|b| *b == b',').any(enough)) {
        drop(lines);
        edits.append("Cache-Control", "private")?;
    }
    Ok(())
}

/// Returns the value of `pair` if its cookie is called `name`; case counts (RFC 6265 §5.3).
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = pair.iter().position(|b| *b == b'=')?;
    let (key, value) = pair.split_at(at);
    (key.trim_ascii() == name).then(|| value[1..].trim_ascii())
}

/// Returns `line` without the cookies called `name`; `None` if it has no such cookie.
fn without(line: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let pairs = || line.split(|b| *b == b';');
    if !pairs().any(|p| value_of(p, name).is_some()) {
        return None;
    }
    let mut rest = Vec::with_capacity(line.len());
    for (i, pair) in pairs().filter(|p| value_of(p, name).is_none()).enumerate() {
        match i {
            // Drops the separator's space before the cookie that is now first.
            0 => rest.extend_from_slice(pair.trim_ascii_start()),
            _ => {
                rest.push(b';');
                rest.extend_from_slice(pair);
            }
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, answer, edits, head, texts};

    fn stripped(lines: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut h = edits(&head("GET", "/"));
        for l in lines {
            h.append("Cookie", l).expect("line");
        }
        strip(&mut h, b"PG").expect("strips");
        h.values("cookie").map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn only_our_cookie_goes() {
        type Lines<'a> = &'a [&'a [u8]];
        let cases: &[(Lines<'_>, Lines<'_>)] = &[
            (&[], &[]),
            (&[b"PG=x"], &[]),
            (&[b" PG = x ; "], &[]),
            (&[b"PG=x; PG=y;PG="], &[]),
            (&[b"a=1; PG=x; b=2"], &[b"a=1; b=2"]),
            (&[b"PG=x; b=2"], &[b"b=2"]),
            (&[b"a=1; PG=x"], &[b"a=1"]),
            (&[b"a=1;PG=x;b=2;  c=\"q; PG=in\""], &[b"a=1;b=2;  c=\"q"]),
            (&[b"a=1", b"PG=x", b"b=2"], &[b"a=1", b"b=2"]),
            (
                &[b"PGX=1; XPG=2; pg=3; PG; =PG; a=PG=x"],
                &[b"PGX=1; XPG=2; pg=3; PG; =PG; a=PG=x"],
            ),
            (
                &[b" a=\xff\xfe ;; b = \t2 ", b"PG=x"],
                &[b" a=\xff\xfe ;; b = \t2 "],
            ),
        ];
        for (lines, want) in cases {
            assert_eq!(stripped(lines), *want, "{lines:?}");
        }
    }

    /// FAULTS D45: 20,000 random requests; each other cookie keeps its bytes and its place.
    #[test]
    fn random_cookies_keep_their_bytes() {
        let mut rng = Rng(7);
        let bytes = b"aPG=\"; \t,%\xc3\xa9";
        for _ in 0..20_000 {
            let (mut lines, mut others, mut ours) = (Vec::new(), Vec::new(), 0);
            for _ in 0..=rng.below(3) {
                let mut pairs: Vec<Vec<u8>> = Vec::new();
                for i in 0..=rng.below(5) {
                    if rng.below(3) == 0 {
                        ours += 1;
                        pairs.push(b"PG=token".to_vec());
                        continue;
                    }
                    let mut pair = format!("c{i}=").into_bytes();
                    for _ in 0..rng.below(12) {
                        pair.push(bytes[rng.below(bytes.len())]);
                    }
                    pair.retain(|b| *b != b';');
                    pair.push(b'.');
                    others.push(pair.clone());
                    pairs.push(pair);
                }
                lines.push(pairs.join(&b"; "[..]));
            }
            let refs: Vec<_> = lines.iter().map(Vec::as_slice).collect();
            let left = stripped(&refs);
            if ours == 0 {
                assert_eq!(left, lines);
            }
            assert_eq!(left.join(&b"; "[..]), others.join(&b"; "[..]), "{lines:?}");
        }
    }

    #[test]
    fn the_node_cannot_set_our_cookie() {
        let mut h = answer(200, &[]);
        for l in [
            "a=1; Path=/",
            "PG=evil; Path=/",
            " PG =x",
            "PGX=1; PG=2",
            "PG",
        ] {
            h.append("Set-Cookie", l).expect("line");
        }
        drop_set_cookie(&mut h, b"PG");
        let left = texts(&h, "set-cookie");
        assert_eq!(left, ["a=1; Path=/", "PGX=1; PG=2", "PG"]);
    }

    #[test]
    fn private_is_added_once() {
        for (lines, added) in [
            (&[][..], true),
            (&["max-age=60, public"], true),
            (&["private=\"Set-Cookie\""], true),
            (&["no-cache"], true),
            (&["Private"], false),
            (&["max-age=0", "x, No-Store"], false),
        ] {
            let sent: Vec<_> = lines.iter().map(|l| ("Cache-Control", *l)).collect();
            let mut h = answer(200, &sent);
            forbid_sharing(&mut h).expect("edits");
            let got = texts(&h, "cache-control");
            let mut want = lines.to_vec();
            want.extend(added.then_some("private"));
            assert_eq!(got, want);
        }
    }
}
