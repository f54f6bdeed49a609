//! What the node learns about the client, and what an untrusted sender cannot forge.

use super::*;
use crate::api::How;
use crate::testing::{Facts, assigned, build, edits, faults, head_with, texts, undecodable};

/// Returns the head that the node gets for a request with `lines` from `facts`.
fn told(yaml: &str, facts: &Facts, lines: &[(&str, &str)]) -> Edits {
    let client = head_with("GET", "/", lines);
    let mut h = edits(&client);
    build(yaml)
        .request(
            &facts.flow(Some(&client)),
            &assigned("ls1", How::Balanced),
            &mut h,
        )
        .expect("edits");
    h
}

fn all(h: &Edits, name: &str) -> Vec<String> {
    texts(h, name)
}

const ALL: &str = "forwarded: { trust: [10.0.0.0/8], x_real_ip: true, forwarded: true }";

const NAMES: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-host",
    "x-real-ip",
    "forwarded",
];

#[test]
fn the_node_learns_address_scheme_port_and_host() {
    let facts = Facts {
        tls: true,
        vip: ([200, 0, 0, 10], 443).into(),
        ..Facts::default()
    };
    let h = told(ALL, &facts, &[("Host", "Push.mycompany.com:443")]);
    for (name, want) in NAMES.into_iter().zip([
        "192.0.2.1",
        "https",
        "443",
        "Push.mycompany.com:443",
        "192.0.2.1",
        "for=192.0.2.1;host=\"Push.mycompany.com:443\";proto=https",
    ]) {
        assert_eq!(all(&h, name), [want], "{name}");
        let same_case = h.fields().any(|(written, _)| written == name);
        assert!(same_case, "{name}: nodes know it in lower case");
    }
    let h = told("forwarded: {}", &Facts::default(), &[("Host", "push")]);
    assert_eq!(
        (all(&h, "x-forwarded-proto"), all(&h, "x-forwarded-port")),
        (vec!["http".into()], vec!["80".into()])
    );
    assert!(
        all(&h, "x-real-ip").is_empty() && all(&h, "forwarded").is_empty(),
        "off by default"
    );
    assert_eq!(all(&h, "host"), ["push"], "untouched");
}

/// FAULTS D15. Without the removal, the first entry of the list would be the forged one.
#[test]
fn headers_of_an_untrusted_sender_are_removed() {
    let forged: Vec<_> = NAMES
        .into_iter()
        .chain([
            "X-Forwarded-Server",
            "X-Forwarded",
            "X_Forwarded_For",
            "x-forwarded_proto",
            "X_Real_IP",
            "X.Forwarded.For",
            "x-real.ip",
        ])
        .map(|n| (n, "6.6.6.6"))
        .chain([
            ("X-Forwarded-For", "6.6.6.7"),
            ("Accept", "x"),
            ("X-Forward", "y"),
        ])
        .collect();
    for yaml in [
        ALL,
        "forwarded: {}",
        "forwarded: { x_forwarded_for: false, x_forwarded_host: false }",
    ] {
        let h = told(yaml, &Facts::default(), &forged);
        for (name, value) in h.fields() {
            let text = std::str::from_utf8(value).expect("text");
            assert!(!text.contains("6.6.6"), "{yaml}: {name}: {text}");
        }
        assert_eq!(
            (all(&h, "accept"), all(&h, "x-forward")),
            (vec!["x".into()], vec!["y".into()])
        );
    }
}

#[test]
fn a_trusted_senders_headers_are_kept_and_extended() {
    let facts = Facts::default().client("10.0.0.9:1");
    let h = told(
        ALL,
        &facts,
        &[
            ("X-Forwarded-For", "6.6.6.6, 192.0.2.1"),
            ("X-Forwarded-For", "10.0.0.8"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Port", "443"),
            ("Forwarded", "for=192.0.2.1;by=_x"),
            ("X-Forwarded-Server", "front"),
        ],
    );
    for (name, want) in [
        ("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.0.0.8, 10.0.0.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-host", "push.mycompany.com"),
        ("x-real-ip", "192.0.2.1"),
        (
            "forwarded",
            "for=192.0.2.1;by=_x, for=10.0.0.9;host=push.mycompany.com;proto=http",
        ),
        ("x-forwarded-server", "front"),
    ] {
        assert_eq!(all(&h, name), [want], "{name}");
    }
}

#[test]
fn our_port_does_not_contradict_a_trusted_scheme() {
    let facts = Facts::default().client("10.0.0.9:1");
    let h = told(ALL, &facts, &[("X-Forwarded-Proto", "https")]);
    assert!(all(&h, "x-forwarded-port").is_empty());
}

/// FAULTS D15: 1,000 entries.
#[test]
fn the_list_is_bounded() {
    let facts = Facts::default().client("10.0.0.9:1");
    for (entries, want) in [(0, 1), (1, 2), (48, 49), (49, 50), (50, 50), (1_000, 50)] {
        let hops: Vec<_> = (0..entries)
            .map(|i| format!("192.0.2.{}", i % 256))
            .collect();
        let h = told(ALL, &facts, &[("X-Forwarded-For", &hops.join(", "))]);
        let list = all(&h, "x-forwarded-for").remove(0);
        assert_eq!(list.split(", ").count(), want, "{entries}: {list}");
        let last = hops.last().map(|h| format!("{h}, ")).unwrap_or_default();
        assert!(list.ends_with(&format!("{last}10.0.0.9")), "{list}");
    }
}

/// FAULTS D14: `Connection` cannot make a hop remove our headers; its other options stay.
#[test]
fn connection_cannot_remove_our_headers() {
    for (lines, want) in [
        (&[("Connection", "X-Forwarded-For")][..], &[][..]),
        (
            &[("Connection", "Upgrade, x-real-ip ,Forwarded")],
            &["Upgrade"],
        ),
        (
            &[
                ("Connection", "keep-alive"),
                ("Connection", "X-FORWARDED-HOST, Upgrade"),
            ],
            &["keep-alive, Upgrade"],
        ),
        (
            &[("Connection", "keep-alive,Upgrade")],
            &["keep-alive,Upgrade"],
        ),
    ] {
        let h = told(ALL, &Facts::default(), lines);
        assert_eq!(all(&h, "connection"), want, "{lines:?}");
        assert_eq!(all(&h, "x-forwarded-for"), ["192.0.2.1"]);
    }
}

#[test]
fn ipv6_is_quoted_in_forwarded_alone() {
    let facts = Facts {
        host: "[2001:db8::5]",
        ..Facts::default()
    }
    .client("[2001:db8::7]:9");
    let h = told(ALL, &facts, &[("Host", "[2001:db8::5]:8080")]);
    assert_eq!(all(&h, "x-forwarded-for"), ["2001:db8::7"]);
    let want = "for=\"[2001:db8::7]\";host=\"[2001:db8::5]:8080\";proto=http";
    assert_eq!(all(&h, "forwarded"), [want]);
    let mapped = Facts::default().client("[::ffff:192.0.2.1]:9");
    assert_eq!(all(&told(ALL, &mapped, &[]), "x-real-ip"), ["192.0.2.1"]);
}

#[test]
fn an_illegal_host_is_not_passed_on() {
    for bad in ["a\", for=6.6.6.6", "a b", "a;by=x", "a,b"] {
        let h = told(ALL, &Facts::default(), &[("Host", bad)]);
        assert_eq!(all(&h, "x-forwarded-host"), ["push.mycompany.com"], "{bad}");
    }
    let nameless = Facts {
        host: "",
        ..Facts::default()
    };
    let h = told(ALL, &nameless, &[]);
    assert!(all(&h, "x-forwarded-host").is_empty());
    assert_eq!(all(&h, "forwarded"), ["for=192.0.2.1;proto=http"]);
}

#[test]
fn mode_tcp_and_unknown_keys_are_refused() {
    assert!(faults("forwarded: {}", Mode::Tcp)[0].contains("mode http"));
    assert!(faults("forwarded: {}", Mode::Http).is_empty());
    assert!(undecodable("forwarded: { x_forwarded: true }"));
    assert!(undecodable("forwarded: { trust: [lan] }"));
}

/// Aim: each request has one id. A trusted sender's is kept, so that both logs name the request alike; any other is
/// replaced. Fails if a client chooses its id, has it removed by the next hop, or sends a second one.
#[test]
fn a_request_has_one_id() {
    let id = |client: [u8; 4], lines: &[(&str, &str)]| {
        let facts = Facts {
            client: (client, 1234).into(),
            ..Facts::default()
        };
        let yaml = "forwarded: { trust: [10.0.0.0/8], request_id: true }";
        all(&told(yaml, &facts, lines), "x-request-id")
    };
    let made = ["18fae27693b400000123456789abcdef"];
    let (trusted, stranger) = ([10, 0, 0, 1], [192, 0, 2, 1]);
    let long = "a".repeat(129);
    let own = [("X-Request-Id", "theirs-1")];
    assert_eq!(id(stranger, &[]), made);
    assert_eq!(id(stranger, &own), made);
    assert_eq!(id(trusted, &own), ["theirs-1"]);
    assert_eq!(id(trusted, &[]), made);
    assert_eq!(id(trusted, &[("X-Request-Id", &long)]), made);
    assert_eq!(id(trusted, &[own[0], own[0]]), made);
    let facts = Facts::default();
    let hop = [("Connection", "X-Request-Id, close")];
    let head = told("forwarded: { request_id: true }", &facts, &hop);
    assert_eq!(all(&head, "connection"), ["close"]);
    assert!(all(&told("forwarded: {}", &facts, &[]), "x-request-id").is_empty());
}
