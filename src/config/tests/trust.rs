//! Whom a listener and a node trust: certificates out of time, authorities, revocation lists, headers.

use super::{Case, prints};

#[test]
fn each_fault_of_trust_is_told_with_its_place() {
    prints(CASES);
}

/// As in [`super::checks`].
const CASES: &[Case] = &[
    (
        "all",
        "nodes: { n: { address: 127.0.0.1:2 } }\ncertificates:\n  over: { chain: over.pem, key: good.key }\n  good: { chain: good.pem, key: good.key, alias: a }\n\
         listeners:\n  - { name: a, bind: [127.0.0.1:1], mode: tcp, to: n, tls: { certificates: [over] } }\n  \
         - { name: b, bind: [127.0.0.1:3], mode: tcp, to: n, tls: { certificates: [over, good] } }\n",
        &[
            "f:4:43: certificates.good.alias: only a keystore has aliases; expected `keystore` beside it",
            "f:6:76: listeners[0].tls.certificates: none of its certificates is valid now: DIR/over.pem: certificate 1 expired on Jan  2 00:00:00 1970 GMT; expected at least one whose time has begun and has not ended",
        ],
    ),
    (
        "all",
        "nodes: { n: { address: 127.0.0.1:2 } }\nlisteners:\n  \
         - { name: a, bind: [127.0.0.1:1], mode: tcp, to: n, pass_forwarded: true }\n  \
         - { name: b, bind: [127.0.0.1:3], mode: http, to: n, pass_forwarded: true, plugins: [{ forwarded: {} }] }\n",
        &[
            "f:3:55: listeners[0].pass_forwarded: no header is read here; expected `mode: http`",
            "f:4:56: listeners[1].pass_forwarded: the plugin `forwarded` decides here; expected `trust` of `forwarded` instead",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], client_ca: both.pem }",
        &[
            "f:9:45: listeners[0].tls.client_ca: DIR/both.pem: has a revocation list, which is not looked at here; expected it in a file of its own (`client_crl` of a listener, `crl_file` of a node)",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], choose: vip, ciphers: [ECDHE-RSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA265] }",
        &[
            "f:9:34: listeners[0].tls.choose: no address has a certificate of its own; expected `by_vip` beside it",
            "f:9:86: listeners[0].tls.ciphers[1]: OpenSSL has no cipher `ECDHE-RSA-AES128-GCM-SHA265`; expected names of TLS 1.2 ciphers, as `openssl ciphers` prints them",
        ],
    ),
    (
        "all",
        "nodes: { n: { address: 127.0.0.1:2 } }\ncertificates: { good: { chain: good.pem, key: good.key } }\n\
         listeners:\n  - { name: a, bind: [\"[::]:1\"], mode: tcp, to: n, tls: { certificates: [good], by_vip: { 127.0.0.1:1: good } } }\n",
        &[
            "f:4:91: listeners[0].tls.by_vip[\"127.0.0.1:1\"]: `127.0.0.1:1` is not bound by this listener; expected a VIP of `bind` (`[::]:1`); `[::]:1` takes IPv6 only, `0.0.0.0:1` beside it takes IPv4",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], client_crl: clients.crl }",
        &[
            "f:9:34: listeners[0].tls.client_crl: no client certificate is asked for; expected `client_ca` beside it",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], client_ca: clients-ca.pem, client_crl: foreign.crl }",
        &[
            "f:9:73: listeners[0].tls.client_crl: DIR/foreign.crl: a revocation list is not signed by its authority",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, tls: { ca_file: nodes-ca.pem, crl_file: good.pem, server_name: . } }",
        &[
            "f:4:70: nodes.n.tls.crl_file: DIR/good.pem: expected revocation lists (PEM or DER), found none",
            "f:4:93: nodes.n.tls.server_name: found `.`; expected a host name or an IP address",
        ],
    ),
];
