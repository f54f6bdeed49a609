//! Heads as parsed, and as written after edits.

use std::sync::Arc;

use super::*;

fn written(edits: &Edits) -> String {
    let mut out = Vec::new();
    edits.write(&mut out);
    String::from_utf8(out).expect("text")
}

fn edits(raw: &str) -> Edits {
    Edits::new(Arc::new(Head::request(raw.as_bytes()).expect(raw)))
}

/// Fails if a head without edits changes any byte, spaces and empty values included.
#[test]
fn an_unedited_head_keeps_its_bytes() {
    for raw in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /a?b=\"<>|`\u{fc} HTTP/1.1\r\nHost: a\r\nEmpty:\r\nX:y  \r\nZ:  q\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nA: 1\r\na: 2\r\n\r\n",
    ] {
        assert_eq!(written(&edits(raw)), raw);
    }
    let raw = "HTTP/1.1 200 Alles klar\r\nA: 1\r\n\r\n";
    let head = Head::response(raw.as_bytes()).expect("a head");
    assert_eq!(written(&Edits::new(Arc::new(head))), raw);
    let old = "GET / HTTP/1.0\r\nA: 1\r\n\r\n";
    assert_eq!(written(&edits(old)), old);
    let old = Head::response(b"HTTP/1.0 404 \r\n\r\n").expect("a head");
    assert_eq!(written(&Edits::new(Arc::new(old))), "HTTP/1.1 404 \r\n\r\n");
}

/// Fails if a line is lost, doubled or out of order when other lines are edited.
#[test]
fn lines_are_dropped_set_and_appended() {
    let raw = "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\na: 3\r\nC: 4\r\n\r\n";
    let mut e = edits(raw);
    e.remove("A");
    e.set("B", "5").expect("legal");
    e.append("D", "6").expect("legal");
    e.append("d", b"\xff").expect("legal");
    e.retain(|name, value| !(name == "d" && value == b"\xff"));
    e.set_target("/x?y").expect("legal");
    let rewrite = |v: &[u8]| Edit::Set([v, b"!"].concat());
    e.rewrite("c", rewrite).expect("legal");
    assert_eq!(
        written(&e),
        "GET /x?y HTTP/1.1\r\nC: 4!\r\nB: 5\r\nD: 6\r\n\r\n"
    );
    e.rewrite("c", |v| Edit::Set([v, b"?"].concat()))
        .expect("legal");
    e.set_fmt("B", format_args!("{}", 7)).expect("legal");
    assert_eq!(
        written(&e),
        "GET /x?y HTTP/1.1\r\nC: 4!?\r\nD: 6\r\nB: 7\r\n\r\n"
    );
    let values: Vec<_> = e.values("D").collect();
    assert_eq!(values, [b"6"]);
    assert!(!e.contains("A") && e.head().value("a") == Some(b"1"));
}

#[test]
fn lines_are_left_out_by_their_place() {
    let raw = "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
    let head = Arc::new(Head::request(raw.as_bytes()).expect(raw));
    let names: Vec<_> = head.lines().map(|(name, _)| name.to_vec()).collect();
    assert_eq!(names, [b"A", b"B", b"C"]);
    let kept = Edits::keeping(head, |i| i != 1);
    assert_eq!(written(&kept), "GET / HTTP/1.1\r\nA: 1\r\nC: 3\r\n\r\n");
}

/// Fails if an edit can end a line or the head.
#[test]
fn edits_cannot_split_a_head() {
    let mut e = edits("GET / HTTP/1.1\r\n\r\n");
    for (name, value) in [
        ("A", "a\r\nB: c"),
        ("A\r\nB", "x"),
        ("", "x"),
        ("A b", "x"),
        ("A", "\0"),
    ] {
        assert!(e.set(name, value).is_err() && e.append(name, value).is_err());
        assert!(e.set_fmt(name, format_args!("{value}")).is_err());
    }
    assert!(e.set_target("/a b").is_err() && e.set_target("").is_err());
    assert_eq!(written(&e), "GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn targets() {
    for (target, origin, path, query, authority) in [
        ("/", Some("/"), "/", None, None),
        (
            "/a?b=http://c",
            Some("/a?b=http://c"),
            "/a",
            Some("b=http://c"),
            None,
        ),
        ("*", Some("*"), "*", None, None),
        ("http://a", None, "/", None, Some("a")),
        ("http://a/b?c", Some("/b?c"), "/b", Some("c"), Some("a")),
        ("HTTPS://a?c/d", None, "/", Some("c/d"), Some("a")),
        ("/a?b#c?d", Some("/a?b"), "/a", Some("b"), None),
        ("http://a#/b?c", None, "/", None, Some("a")),
        ("a:b://c/d?e", None, "/", None, None),
        ("a:443", None, "/", None, None),
        ("?a", None, "/", Some("a"), None),
    ] {
        let head = Head::make_request("GET", target, []).expect(target);
        let got = (
            head.origin_form(),
            head.path(),
            head.query(),
            head.authority(),
        );
        assert_eq!(got, (origin, path, query, authority), "{target}");
    }
}

#[test]
fn bytes_that_are_not_a_head_are_refused() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_LINES + 1));
    for (raw, error) in [
        ("GET /\r\n\r\n", HeadError::Syntax),
        ("GET / HTTP/1.1\r\n", HeadError::Syntax),
        ("GET / HTTP/1.1\r\nA b: c\r\n\r\n", HeadError::Syntax),
        ("GET / HTTP/1.1\r\n\r\nGET", HeadError::Syntax),
        ("GET / HTTP/2.0\r\n\r\n", HeadError::Version),
        (&many, HeadError::TooManyLines),
    ] {
        assert_eq!(
            Head::request(raw.as_bytes()).err(),
            Some(error),
            "{raw:.40}"
        );
    }
}
