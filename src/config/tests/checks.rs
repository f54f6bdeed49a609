//! Faults that no single value shows (names, addresses, files), and values out of bounds.

use super::{Case, prints};

#[test]
fn each_fault_is_told_with_its_place() {
    prints(CASES);
}

/// Base, added text, lines printed; `…` stands for any text.
const CASES: &[Case] = &[
    (
        "top",
        "admin: { bind: 0.0.0.0:9900 }",
        &[
            "f:5:16: admin.bind: `0.0.0.0:9900` can be reached from outside and no token is set; expected a loopback address, or `token_file`",
        ],
    ),
    (
        "top",
        "admin: { bind: \"[::]:9900\", token_file: absent.token }",
        &[
            "f:5:41: admin.token_file: `DIR/absent.token` cannot be read: …; expected a file whose first line is the token",
        ],
    ),
    (
        "top",
        "admin: { bind: 127.0.0.1:1 }",
        &[
            "f:4:23: listeners[0].bind[0]: `127.0.0.1:1` is already bound by admin.bind in line 5; expected each address once",
        ],
    ),
    (
        "top",
        "admin: { bind: 127.0.0.1:9900, token_file: empty.token }",
        &[
            "f:5:44: admin.token_file: the first line of `DIR/empty.token` is empty; expected a file whose first line is the token",
        ],
    ),
    (
        "top",
        "log: { access: { file: absent/access.log } }",
        &[
            "f:5:24: log.access.file: `DIR/absent/access.log` cannot be written; expected a file in a folder that exists",
        ],
    ),
    (
        "top",
        "drain_deadline: 0s\nmax_connections: 0",
        &["f:6:18: max_connections: found `0`; expected a whole number from 1"],
    ),
    (
        "listener",
        "max_hidden: 4095B",
        &[
            "f:9:17: listeners[0].max_hidden: found `4095B`; expected a size from 4KiB to 16MiB, or a block (`bytes`, `bulk`)",
        ],
    ),
    (
        "listener",
        "max_hidden: 17MiB",
        &[
            "f:9:17: listeners[0].max_hidden: found `17MiB`; expected a size from 4KiB to 16MiB, or a block (`bytes`, `bulk`)",
        ],
    ),
    (
        "listener",
        "max_hidden: { bulk: false, bytes: 4095B }",
        &[
            "f:9:39: listeners[0].max_hidden.bytes: found `4095B`; expected a size from 4KiB to 16MiB",
        ],
    ),
    (
        "listener",
        "handshake_timeout: 0s",
        &["f:9:24: listeners[0].handshake_timeout: found `0s`; expected a duration above zero, …"],
    ),
    (
        "listener",
        "connection_rate_per_client: none\n    request_rate_per_client: 0/s",
        &[
            "f:9:33: listeners[0].connection_rate_per_client: found `none`; expected a rate above zero and up to 1000000/s, such as `50/s`, `30/min`, or `off`",
            "f:10:30: listeners[0].request_rate_per_client: found `0/s`; expected a rate above zero and up to 1000000/s, such as `50/s`, `30/min`, or `off`",
        ],
    ),
    (
        "listener",
        "head_timeout: 0ms",
        &["f:9:19: listeners[0].head_timeout: found `0ms`; expected a duration above zero, …"],
    ),
    (
        "listener",
        "limits: { head: 0B, headers: 0 }",
        &[
            "f:9:21: listeners[0].limits.head: found `0B`; expected a size from 1B to 1MiB",
            "f:9:34: listeners[0].limits.headers: found `0`; expected a whole number from 1 to 256",
        ],
    ),
    (
        "listener",
        "limits: { head: 2MiB, target: 0B, headers: 257 }",
        &[
            "f:9:21: listeners[0].limits.head: found `2MiB`; expected a size from 1B to 1MiB",
            "f:9:35: listeners[0].limits.target: found `0B`; expected a size from 1B to 1MiB",
            "f:9:48: listeners[0].limits.headers: found `257`; expected a whole number from 1 to 256",
        ],
    ),
    (
        "listener",
        "tcp: { keepalive: 0s, user_timeout: 0s }",
        &[
            "f:9:23: listeners[0].tcp.keepalive: found `0s`; expected a duration from 1s to 9h 6m 7s, …",
            "f:9:41: listeners[0].tcp.user_timeout: found `0s`; expected a duration above zero, …",
        ],
    ),
    (
        "listener",
        "tcp: { keepalive: 10h }",
        &[
            "f:9:23: listeners[0].tcp.keepalive: found `10h`; expected a duration from 1s to 9h 6m 7s, …",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [] }",
        &[
            "f:9:26: listeners[0].tls.certificates: TLS without a certificate; expected at least one name of `certificates`",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good, good, goood] }",
        &[
            "f:9:33: listeners[0].tls.certificates[1]: `good` is there twice; expected each certificate once",
            "f:9:39: listeners[0].tls.certificates[2]: unknown certificate `goood` (did you mean `good`?)",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], by_vip: { 127.0.0.2:1: good, 127.0.0.1:1: bad, 127.0.0.1: good } }",
        &[
            "f:9:44: listeners[0].tls.by_vip[\"127.0.0.2:1\"]: `127.0.0.2:1` is not bound by this listener; expected a VIP of `bind` (`127.0.0.1:1`, `[::1]:1`)",
            "f:9:76: listeners[0].tls.by_vip[\"127.0.0.1:1\"]: unknown certificate of this listener `bad`; expected `good`",
            "f:9:81: listeners[0].tls.by_vip[\"127.0.0.1\"]: found `127.0.0.1`; expected an address with its port, …",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], by_vip: { \"[::1]:1\": good, \"[0::1]:1\": good } }",
        &[
            "f:9:61: listeners[0].tls.by_vip[\"[0::1]:1\"]: `[::1]:1` is there twice; expected each VIP once",
        ],
    ),
    (
        "listeners",
        "listeners:\n  - { name: a, bind: [127.0.0.1:1], mode: http }",
        &[
            "f:4:5: listeners[0]: no flow of this listener goes anywhere; expected `to: <pool or node>`, or a plugin that routes",
        ],
    ),
    (
        "listeners",
        "listeners:\n  - { name: a, bind: [127.0.0.1:1], mode: http, to: m }",
        &["f:4:53: listeners[0].to: unknown pool or node `m`; expected one of `p`, `n`"],
    ),
    (
        "listeners",
        "listeners:\n  - { name: a, bind: [127.0.0.1:1, 127.0.0.1:1, 127.0.0.1:0, 127.0.0.1:0, 0.0.0.0:1], mode: http, to: n }\n  - { name: a, bind: [0.0.0.0:1, 127.0.0.1:3], mode: tcp, to: n }",
        &[
            "f:4:36: listeners[0].bind[1]: `127.0.0.1:1` is already bound by listeners[0].bind[0] in line 4; expected each address once",
            "f:5:13: listeners[1].name: a listener is already called `a`, in line 4; expected another name: logs and metrics tell listeners by it",
            "f:5:23: listeners[1].bind[0]: `0.0.0.0:1` is already bound by listeners[0].bind[4] in line 4; expected each address once",
        ],
    ),
    (
        "listeners",
        "listeners:\n  - { name: \"\", bind: [], mode: http, to: n }\n  - { name: a b, bind: [127.0.0.1:1], mode: http, to: n }",
        &[
            "f:4:13: listeners[0].name: name ``; expected 1 to 64 letters, digits, `_`, `-`, `.` of ASCII",
            "f:4:23: listeners[0].bind: a listener without an address; expected at least one address with its port",
            "f:5:13: listeners[1].name: name `a b`; expected 1 to 64 letters, digits, `_`, `-`, `.` of ASCII",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:0 }\n  m: { address: 0.0.0.0:80, weight: 1001 }\n  ü: { address: 127.0.0.1:1 }",
        &[
            "f:4:17: nodes.n.address: nothing can be reached at `127.0.0.1:0`; expected the address and port the push server listens on",
            "f:5:17: nodes.m.address: nothing can be reached at `0.0.0.0:80`; expected the address and port the push server listens on",
            "f:5:37: nodes.m.weight: found `1001`; expected a whole number from 0 to 1000",
            "f:6:3: nodes.ü: name `ü`; expected 1 to 64 letters, digits, `_`, `-`, `.` of ASCII",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: push1 }\n  m: { address: 10.0.0.300:80 }\n  o: { address: 127.0.0.1:1 }",
        &[
            "f:4:17: nodes.n.address: found `push1`; expected an address or host name with its port, such as `10.0.0.1:80` or `push1.internal:80`",
            "f:5:17: nodes.m.address: found `10.0.0.300:80`; expected an address or host name with its port, such as `10.0.0.1:80` or `push1.internal:80`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { discover: {} }\n  q: { discover: { host: a:1, srv: b } }\n  r: { discover: { host: a, srv: -b, family: v4 } }\n  s: { discover: { srv: a, tls: {} } }",
        &[
            "f:6:8: pools.p.discover: neither `host` nor `srv`; expected `host: push.internal:80` or `srv: _push._tcp.internal`",
            "f:7:8: pools.q.discover: both `host` and `srv`; expected one of them",
            "f:8:26: pools.r.discover.host: found `a`; expected a host name with its port, such as `push.internal:80`",
            "f:8:34: pools.r.discover.srv: found `-b`; expected a host name, such as `_push._tcp.internal`",
            "f:8:46: pools.r.discover.family: unknown word `v4`; expected one of `auto`, `ipv4`, `ipv6`, `both` (did you mean `ipv4`?)",
            "f:9:28: pools.s.discover.tls: no name that nodes must prove; expected `server_name`: else an answer, which may be forged, would choose the name that is proven",
        ],
    ),
    (
        "top",
        "resolvers: { addresses: [10.0.0.53:0], timeout: 0s, min_ttl: 10s, max_ttl: 5s, allow: [all] }",
        &[
            "f:5:26: resolvers.addresses[0]: nothing can be reached at `10.0.0.53:0`; expected the address and port of a DNS server",
            "f:5:49: resolvers.timeout: found `0s`; expected a duration above zero, …",
            "f:5:62: resolvers.min_ttl: found `10s`; expected at most `max_ttl`, which is 5s",
            "f:5:88: resolvers.allow[0]: found `all`; expected a network or an address, such as `10.0.0.0/8`, `192.0.2.7`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: {} }\n  m: { address: 127.0.0.1:2, health: { tcp: {}, http: { path: / } } }",
        &[
            "f:4:30: nodes.n.health: neither `tcp` nor `http` nor `tls`; expected `tcp: {}`, `tls: {}` or `http: { path: … }`",
            "f:5:30: nodes.m.health: both `tcp` and `http`; expected one of them",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: { tcp: { port: 0 }, rise: 0, fall: 101, interval: 0s, timeout: 0s } }",
        &[
            "f:4:53: nodes.n.health.tcp.port: found `0`; expected a whole number from 1 to 65535",
            "f:4:64: nodes.n.health.rise: found `0`; expected a whole number from 1 to 100",
            "f:4:73: nodes.n.health.fall: found `101`; expected a whole number from 1 to 100",
            "f:4:88: nodes.n.health.interval: found `0s`; expected a duration above zero, …",
            "f:4:101: nodes.n.health.timeout: found `0s`; expected a duration above zero, …",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: { http: { path: health, status: 99, port: 0, host: \"a b\" } } }",
        &[
            "f:4:54: nodes.n.health.http.path: found `health`; expected a path that starts with `/`, without blanks and `#`",
            "f:4:70: nodes.n.health.http.status: found `99`; expected a status from 200 to 599, a range such as `200-399`, or a list of both",
            "f:4:80: nodes.n.health.http.port: found `0`; expected a whole number from 1 to 65535",
            "f:4:89: nodes.n.health.http.host: found `a b`; expected a host name",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: { http: { path: \"/a b\" } } }",
        &[
            "f:4:54: nodes.n.health.http.path: found `/a b`; expected a path that starts with `/`, without blanks and `#`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, server: m }\n  m: { address: 127.0.0.1:3, server: m }\n  o: { address: 127.0.0.1:4, server: x }",
        &[
            "f:4:38: nodes.n.server: `m` does not stand for a server of its own; expected another node, which has no `server`",
            "f:5:38: nodes.m.server: `m` does not stand for a server of its own; expected another node, which has no `server`",
            "f:6:38: nodes.o.server: unknown node `x`; expected one of `n`, `m`, `o`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, weight: 0 }\npools:\n  n: { nodes: [n] }\n  p: { nodes: [] }\n  q: { nodes: [n, n, m, x] }",
        &[
            "f:6:3: pools.n: a node is also called `n`; expected one name for one thing: `to` could mean either",
            "f:6:15: pools.n.nodes: every node has weight 0; expected one node with a weight from 1",
            "f:7:15: pools.p.nodes: a pool without nodes; expected at least one name of `nodes`, or `discover`",
            "f:8:19: pools.q.nodes[1]: `n` is there twice; expected each node once; see `weight`",
            "f:8:22: pools.q.nodes[2]: unknown node `m`; expected `n`",
            "f:8:25: pools.q.nodes[3]: unknown node `x`; expected `n`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], retries: 17, connect_timeout: 0s }",
        &[
            "f:6:29: pools.p.retries: found `17`; expected a whole number from 0 to 16",
            "f:6:50: pools.p.connect_timeout: found `0s`; expected a duration above zero, …",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], health: { tcp: {} } }\n  q:\n    nodes: [n]\n    health: { tcp: {}, rise: 3 }",
        &[
            "f:8:13: pools.q.nodes[0]: `n` is also in pool `p`, whose `health` differs; expected the same `health` in both pools, or one under `nodes.n`",
        ],
    ),
    (
        "top",
        "certificates:\n  a: { chain: absent.pem, key: absent.key }\n  b: { chain: good.key, key: good.pem }\n  c: { chain: good.pem, key: other.key }",
        &[
            "f:6:15: certificates.a.chain: DIR/absent.pem: cannot be read: …",
            "f:6:32: certificates.a.key: DIR/absent.key: cannot be read: …",
            "f:7:15: certificates.b.chain: DIR/good.key: expected PEM certificates, found none",
            "f:7:30: certificates.b.key: DIR/good.pem: expected a PEM private key: …",
            "f:8:30: certificates.c.key: DIR/other.key: is not the private key of the first certificate in DIR/good.pem",
        ],
    ),
    (
        "top",
        "certificates:\n  a: { chain: empty.token, key: locked.key }\n  b: { chain: ., key: big.pem }",
        &[
            "f:6:15: certificates.a.chain: DIR/empty.token: expected PEM certificates, found none",
            "f:6:33: certificates.a.key: DIR/locked.key: the private key is encrypted; expected `password_file` or `password_env`",
            "f:7:15: certificates.b.chain: DIR/.: cannot be read: …",
            "f:7:23: certificates.b.key: DIR/big.pem: cannot be read: larger than 1048576 bytes",
        ],
    ),
    (
        "top",
        "certificates:\n  a: { keystore: good.pem, chain: good.pem }\n  b: { keystore: old.jks, password_file: good.token }\n  c: { chain: good.pem, key: locked.key, password_file: good.token }\n  d: { chain: good.pem, key: locked.key, password_file: empty.token }\n  e: { chain: good.pem, key: locked.key, password_env: PUSHGATE_NO_SUCH_VARIABLE }\n  f: { chain: good.pem, key: locked.key, password_file: other.token }\n  g: { chain: good.pem, key: good.key, ocsp: responder }\n  h: { chain: good.pem, key: good.key, ocsp: { file: absent.der } }\n  i: {}",
        &[
            "f:6:3: certificates.a: a keystore has chain and key in it; expected `chain` and `key`, or `keystore`",
            "f:7:18: certificates.b.keystore: DIR/old.jks: is a keystore in Java's old format; convert it: keytool …",
            "f:9:57: certificates.d.password_file: DIR/empty.token: the first line must be the password",
            "f:10:56: certificates.e.password_env: environment variable `PUSHGATE_NO_SUCH_VARIABLE` is not set",
            "f:11:30: certificates.f.key: DIR/locked.key: the password does not open it",
            "f:12:46: certificates.g.ocsp: the certificate names no OCSP responder",
            "f:13:46: certificates.h.ocsp: DIR/absent.der: cannot be read: …",
            "f:14:3: certificates.i: neither PEM files nor a keystore; expected `chain` and `key`, `keystore` or `acme`",
        ],
    ),
    (
        "top",
        "tickets: { rotate: 0s, keep: 16, file: good.token }",
        &[
            "f:5:20: tickets.rotate: found `0s`; expected a duration above zero, …",
            "f:5:30: tickets.keep: found `16`; expected a whole number from 0 to 15",
            "f:5:40: tickets.file: DIR/good.token: line 1: expected a ticket key of 80 bytes, as `openssl rand -hex 80` prints it",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], profile: modern, max_version: 1.2, ciphers: [NONE], groups: [X25519, P-1], client_certificate: optional }",
        &[
            "f:9:64: listeners[0].tls.max_version: no version is left; expected no less than `min_version`, which the profile sets where it is not there",
            "f:9:79: listeners[0].tls.ciphers[0]: OpenSSL has no cipher `NONE`; expected names of TLS 1.2 ciphers, as `openssl ciphers` prints them",
            "f:9:103: listeners[0].tls.groups[1]: found `P-1`; expected a group of OpenSSL's, such as `X25519MLKEM768`, `X25519`, `P-256`",
            "f:9:109: listeners[0].tls.client_certificate: nobody can judge a client's certificate; expected `client_ca` beside it",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, tls: { ca_file: absent.pem, server_name: \"a b\", client_certificate: nope } }\n  m: { address: 127.0.0.1:2, tls: { ca_file: good.pem, verify: false } }",
        &[
            "f:4:46: nodes.n.tls.ca_file: DIR/absent.pem: cannot be read: …",
            "f:4:71: nodes.n.tls.server_name: found `a b`; expected a host name or an IP address",
            "f:4:98: nodes.n.tls.client_certificate: unknown certificate `nope`",
            "f:5:37: nodes.m.tls.ca_file: an authority nobody asks; expected `verify: true`, or no `ca_file`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], rebalance_on: [/a, b, \"/c?d\", \"/e f\"] }",
        &[
            "f:6:39: pools.p.rebalance_on[1]: found `b`; expected a path that starts with `/`, without query",
            "f:6:42: pools.p.rebalance_on[2]: found `/c?d`; expected a path that starts with `/`, without query",
            "f:6:50: pools.p.rebalance_on[3]: found `/e f`; expected a path that starts with `/`, without query",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: { tcp: {}, tls: {} } }",
        &["f:4:30: nodes.n.health: both `tcp` and `tls`; expected one of them"],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: { tcp: {}, passive: { failures: 0 } } }",
        &[
            "f:4:70: nodes.n.health.passive.failures: found `0`; expected a whole number from 1 to 10000",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, tcp: { user_timeout: 0s } }",
        &["f:4:51: nodes.n.tcp.user_timeout: found `0s`; expected a duration above zero, …"],
    ),
];
