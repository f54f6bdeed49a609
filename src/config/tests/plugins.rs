//! Faults of plugins' blocks, and hosts that no certificate covers.

use super::{Case, prints};

#[test]
fn each_fault_is_told_with_its_place() {
    prints(CASES);
}

/// Base, added text, lines printed; `…` stands for any text.
const CASES: &[Case] = &[
    (
        "listener",
        "plugins: [{ host_route: { hosts: { push1.mycompany.com: m, push2.mycompany.com: p } } }]",
        &[
            "f:9:61: listeners[0].plugins[0].host_route.hosts[\"push1.mycompany.com\"]: unknown pool or node `m`…",
        ],
    ),
    (
        "listener",
        "plugins:\n      - host_route: { hosts: {} }\n      - vip_route: { vips: { here: n } }",
        &[
            "f:10:30: listeners[0].plugins[0].host_route.hosts: found a block; expected at least one host name",
            "f:11:30: listeners[0].plugins[1].vip_route.vips.here: found `here`; expected an address, such as `200.0.0.1` or `200.0.0.1:443`",
        ],
    ),
    // Seen by the fuzzer: a plugin repeated a text of the file, which could forge a line.
    (
        "listener",
        "plugins: [{ host_route: { hosts: { a.com: \"m\\nf:1:1: b\" } } }]",
        &["f:9:47: listeners[0].plugins[0].host_route.hosts[\"a.com\"]: … `m\\nf:1:1: b`…"],
    ),
    (
        "listener",
        "plugins: [{ sticky_cookie: { max_age: 8, same_sit: lax } }, { sticky_ip: { mode: hsh } }]",
        &[
            "f:9:43: listeners[0].plugins[0].sticky_cookie.max_age: found `8`; expected …",
            "f:9:46: listeners[0].plugins[0].sticky_cookie.same_sit: unknown key `same_sit`; … (did you mean `same_site`?)",
            "f:9:86: listeners[0].plugins[1].sticky_ip.mode: unknown word `hsh`; expected one of `table`, `hash` (did you mean `hash`?)",
        ],
    ),
    (
        "listener",
        "plugins: [{ sticky_cookie: { key_file: absent.keys } }, { sticky_ip: { capacity: 0 } }]",
        &[
            "f:9:44: listeners[0].plugins[0].sticky_cookie.key_file: … `DIR/absent.keys`…",
            "f:9:86: listeners[0].plugins[1].sticky_ip.capacity: …",
        ],
    ),
    // A cookie and headers do not exist at layer 4.
    (
        "listeners",
        "listeners:\n  - { name: a, bind: [127.0.0.1:1], mode: tcp, to: p, plugins: [{ sticky_cookie: {} }, { forwarded: {} }] }",
        &[
            "f:4:67: listeners[0].plugins[0].sticky_cookie: a cookie needs mode http…",
            "f:4:90: listeners[0].plugins[1].forwarded: …",
        ],
    ),
    // Two cookies of one name overwrite each other; of two names they do not.
    (
        "listener",
        "plugins: [{ sticky_cookie: {} }, { sticky_cookie: { name: B } }, { sticky_cookie: { name: PUSHGATE } }]",
        &[
            "f:9:72: listeners[0].plugins[2].sticky_cookie: the cookie `PUSHGATE` is set by another block; expected another `name`",
        ],
    ),
    // Lightstreamer clustering §3.2.1.3, §3.2.2.3: a pinned host needs a certificate that covers it.
    (
        "listener",
        "tls: { certificates: [good] }\n    plugins: [{ host_route: { hosts: { push1.mycompany.com: n, push.other.com: n, 10.0.0.1: n, push.third.com: n } } }]",
        &[
            "f:10:96: listeners[0].plugins[0].host_route.hosts[\"push.third.com\"]: no certificate of this listener covers `push.third.com`; expected a name under `*.mycompany.com`, `push.other.com`",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good] }\n    plugins: [{ sni_route: { names: { push1.mycompany.com: n, push.third.com: n } } }]",
        &[
            "f:10:63: listeners[0].plugins[0].sni_route.names[\"push.third.com\"]: no certificate of this listener covers `push.third.com`; expected a name under `*.mycompany.com`, `push.other.com`",
        ],
    ),
    (
        "listeners",
        "listeners:\n  - { name: a, bind: [127.0.0.1:1], mode: http, plugins: [{ sticky_ip: {} }] }",
        &["f:4:5: listeners[0]: no flow of this listener goes anywhere; …"],
    ),
];
