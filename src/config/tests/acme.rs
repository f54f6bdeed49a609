//! Blocks `acme` that no authority could serve, each with every line that `check` must print.

use std::path::Path;

use super::{Config, prints};
use crate::config::Challenge;

#[test]
fn each_fault_of_acme_is_told_with_its_place() {
    prints(&[
        (
            "top",
            "certificates:\n  a: { acme: { domains: [a.b], external_account: { id: kid, key_file: good.token } } }\n  b: { acme: { domains: [b.b], external_account: { key_file: absent.key } } }",
            &[
                "f:6:71: certificates.a.acme.external_account.key_file: DIR/good.token: expected a key in base64url on the first line",
                "f:7:32: certificates.b.acme.external_account: key `id` is missing",
                "f:7:62: certificates.b.acme.external_account.key_file: DIR/absent.key: cannot be read: …",
            ],
        ),
        (
            "top",
            "certificates:\n  a: { acme: { domains: [] } }\n  b: { acme: {} }\n  c: { acme: { domains: ['*.a.b', 10.0.0.1, a b, x.a.b, X.a.b.] } }",
            &[
                "f:6:25: certificates.a.acme.domains: an empty list; expected at least one host name",
                "f:7:8: certificates.b.acme: key `domains` is missing",
                "f:8:26: certificates.c.acme.domains[0]: authorities prove a wildcard by DNS only, which this edge cannot answer; expected a host name",
                "f:8:35: certificates.c.acme.domains[1]: found `10.0.0.1`; expected a host name, such as `push.mycompany.com`",
                "f:8:45: certificates.c.acme.domains[2]: found `a b`; expected a host name, such as `push.mycompany.com`",
                "f:8:57: certificates.c.acme.domains[4]: `X.a.b.` is there twice; expected each name once",
            ],
        ),
        (
            "top",
            "certificates:\n  a: { acme: { domains: [a.b], directory: 'http://ca/dir', email: ops, ca_file: absent.pem } }\n  b: { acme: { domains: [b.b], challenge: tls-alpn-01, state: good.pem/x } }\n  c: { acme: { domains: [c.b], challenge: dns-01 } }",
            &[
                "f:6:43: certificates.a.acme.directory: found `http://ca/dir`; expected `letsencrypt`, `staging`, or the `https` URL of an authority's directory",
                "f:6:67: certificates.a.acme.email: found `ops`; expected one address, such as `ops@mycompany.com`",
                "f:6:81: certificates.a.acme.ca_file: DIR/absent.pem: cannot be read: …",
                "f:7:43: certificates.b.acme.challenge: no listener answers it; expected a listener with `tls`, at port 443",
                "f:7:63: certificates.b.acme.state: `DIR/good.pem` is not a folder; expected a folder, or one that can be made",
                "f:8:43: certificates.c.acme.challenge: unknown word `dns-01`; expected one of `http-01`, `tls-alpn-01`",
            ],
        ),
        (
            "top",
            "certificates:\n  a: { acme: { domains: [a.b] }, chain: good.pem }\n  b: { acme: { domains: [b.b] }, ocsp: responder }\n  c: { acme: { domains: [c.b] } }\n  d: { acme: { domains: [C.b, d.b] } }",
            &[
                "f:6:3: certificates.a: the edge keeps the file of `acme` itself; expected `acme` without files and passwords",
                "f:7:40: certificates.b.ocsp: the edge would not start with a certificate that names no responder; expected `off` beside `acme`",
            ],
        ),
        (
            "all",
            "nodes: { n: { address: 127.0.0.1:2 } }\ncertificates: { a: { acme: { domains: [a.b] } } }\nlisteners: [{ name: a, bind: [127.0.0.1:1], mode: tcp, to: n }]",
            &[
                "f:2:22: certificates.a.acme: no listener answers the authority's challenge; expected a listener of `mode: http` at port 80, or one with `tls` at port 443",
            ],
        ),
        (
            "all",
            "nodes: { n: { address: 127.0.0.1:2 } }\ncertificates: { a: { acme: { domains: [a.b], state: . } } }\nlisteners: [{ name: a, bind: [127.0.0.1:443], mode: tcp, to: n, tls: { certificates: [a] } }]",
            &[],
        ),
    ]);
}

/// Aim: without a word of the file the challenge is one that a listener answers, the port where authorities ask before
/// another one. Fails if TLS that passes through counts. Source: RFC 8555 §8.3; RFC 8737 §3.
#[test]
fn the_challenge_follows_the_listeners() {
    let dir = super::files();
    let tls = "tls: { certificates: [a] }";
    let cases = [
        (
            vec!["mode: http, bind: [127.0.0.1:80]"],
            Challenge::Http,
            true,
        ),
        (
            vec!["mode: http, bind: [127.0.0.1:8080]"],
            Challenge::Http,
            false,
        ),
        (
            vec!["mode: tcp, bind: [127.0.0.1:443], TLS"],
            Challenge::TlsAlpn,
            true,
        ),
        (
            vec![
                "mode: tcp, bind: [127.0.0.1:80]",
                "mode: http, bind: [127.0.0.1:8443], TLS",
            ],
            Challenge::TlsAlpn,
            false,
        ),
        (
            vec![
                "mode: http, bind: [127.0.0.1:8080]",
                "mode: http, bind: [127.0.0.1:443], TLS",
            ],
            Challenge::TlsAlpn,
            true,
        ),
        (
            vec![
                "mode: http, bind: ['unix:/a']",
                "mode: http, bind: [127.0.0.1:444], TLS",
            ],
            Challenge::TlsAlpn,
            false,
        ),
    ];
    for (listeners, expected, at_its_port) in cases {
        let all = listeners.iter().enumerate();
        let all: Vec<_> = all
            .map(|(i, keys)| format!("{{ name: l{i}, to: n, {} }}", keys.replace("TLS", tls)))
            .collect();
        let text = format!(
            "nodes: {{ n: {{ address: 127.0.0.1:2 }} }}\ncertificates: {{ a: {{ acme: {{ domains: [a.b] }} }} }}\n\
             listeners: [{}]\n",
            all.join(", ")
        );
        let config = Config::parse(&text, "f", dir.path()).unwrap_or_else(|e| panic!("{e}"));
        let acme = config.certificates["a"].acme.clone().expect("a block");
        assert_eq!(config.challenge_of(&acme), Some(expected), "{text}");
        assert_eq!(
            config.warnings.is_empty(),
            at_its_port,
            "{text}{:?}",
            config.warnings
        );
        let printed = config.effective().expect("YAML");
        assert!(
            printed.contains(&format!("challenge: {}", expected.as_str())),
            "{printed}"
        );
        let again = Config::parse(&printed, "f", Path::new(dir.path()));
        assert!(again.is_ok(), "{printed}");
    }
}
