//! Tests of the commands to a running edge, without one.

use super::*;

#[test]
fn queries_say_what_is_given() {
    assert_eq!(query([("rate", None), ("close", None)]), "");
    let words = [("share", Some("30%".into())), ("rate", Some("50/s".into()))];
    assert_eq!(query(words), "?share=30%25&rate=50/s");
    let odd = query([("from", Some("a&b=c d".into()))]);
    assert_eq!(odd, "?from=a%26b%3Dc%20d");
}

#[test]
fn names_cannot_escape_their_path() {
    assert_eq!(name("ls1"), Ok("ls1"));
    for bad in ["", "a/b", "../x", "a?b", "a b", "ä"] {
        assert!(name(bad).is_err(), "{bad}");
    }
}

#[test]
fn only_a_plain_endpoint_is_asked() {
    for bad in [
        "https://127.0.0.1:9900",
        "127.0.0.1:9900",
        "http://",
        "x y",
        "unix:relative",
        "unix:",
    ] {
        let at = Place {
            config: None,
            admin: Some(bad.into()),
            token_file: None,
        };
        let said = Edge::new(&at).err().unwrap_or_default();
        assert!(said.starts_with("--admin "), "{bad}: {said}");
    }
}

/// Aim: an order reaches the endpoint of the file, as seen from this machine, with its token. Fails if an
/// address that stands for all is asked, or if an option no longer wins.
#[test]
fn the_endpoint_comes_from_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("edge.yaml");
    let place = |admin: Option<&str>| Place {
        config: Some(file.clone()),
        admin: admin.map(str::to_owned),
        token_file: None,
    };
    std::fs::write(dir.path().join("t"), "secret\n").expect("a token");
    for (text, admin, expected) in [
        ("nodes: {}", None, "no block `admin`"),
        ("admin: { bind: 127.0.0.1:0 }", None, "port 0"),
        (
            "admin: { bind: nowhere }",
            None,
            "admin.bind: found `nowhere`",
        ),
        (
            "admin: { bind: 10.0.0.9:1, token_file: none }",
            None,
            "none: ",
        ),
        ("admin: { bind: 10.0.0.9:1 }", None, "http://10.0.0.9:1"),
        (
            "admin: { bind: 0.0.0.0:2, token_file: t }",
            None,
            "http://127.0.0.1:2 Bearer secret",
        ),
        ("admin: { bind: '[::]:3' }", None, "http://[::1]:3"),
        (
            "admin: { bind: 'unix:/run/a.sock' }",
            None,
            "unix:/run/a.sock",
        ),
        (
            "admin: { bind: 0.0.0.0:2, token_file: t }",
            Some("unix:@b"),
            "unix:@b Bearer secret",
        ),
        (
            "admin: { bind: 0.0.0.0:2, token_file: t }",
            Some("http://a:4/"),
            "http://a:4 Bearer secret",
        ),
    ] {
        std::fs::write(&file, text).expect("a file");
        let said = match Edge::new(&place(admin)) {
            Ok(edge) => edge.asked(),
            Err(e) => e,
        };
        assert!(said.contains(expected), "{text}: {said}");
    }
}
