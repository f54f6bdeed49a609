//! Values of the wrong kind, unknown words and keys, missing keys.

use super::{Case, prints};

#[test]
fn each_fault_is_told_with_its_place() {
    prints(CASES);
}

/// Base, added text, lines printed; `…` stands for any text.
const CASES: &[Case] = &[
    (
        "top",
        "threads: 0",
        &["f:5:10: threads: found `0`; expected a whole number from 1"],
    ),
    (
        "top",
        "threads: many",
        &["f:5:10: threads: found `many`; expected a whole number from 1"],
    ),
    (
        "top",
        "max_connections: -1",
        &["f:5:18: max_connections: found `-1`; expected a whole number from 1"],
    ),
    (
        "top",
        "client_share: 60",
        &["f:5:15: client_share: found `60`; expected a percentage from `0%` to `100%`"],
    ),
    (
        "top",
        "memory: { limit: 101% }",
        &[
            "f:5:18: memory.limit: found `101%`; expected a percentage from `1%` to `100%`, or a size from 32MiB to 64TiB",
        ],
    ),
    (
        "top",
        "memory: { limit: 16MiB }",
        &[
            "f:5:18: memory.limit: found `16MiB`; expected a percentage from `1%` to `100%`, or a size from 32MiB to 64TiB",
        ],
    ),
    (
        "top",
        "max_connections: 1e3",
        &["f:5:18: max_connections: found `1e3`; expected a whole number from 1"],
    ),
    (
        "top",
        "drain_deadline: 90",
        &["f:5:17: drain_deadline: found `90`; expected a duration with its unit, …"],
    ),
    (
        "top",
        "drain_deadline: 5 parsecs",
        &["f:5:17: drain_deadline: found `5 parsecs`; expected a duration with its unit, …"],
    ),
    (
        "top",
        "drain_deadline: 500000000000y",
        &[
            "f:5:17: drain_deadline: found `500000000000y`; expected a duration up to `3650d`, ten years",
        ],
    ),
    (
        "top",
        "drain_deadlin: 1h",
        &[
            "f:5:1: drain_deadlin: unknown key `drain_deadlin`; expected one of `admin`, … (did you mean `drain_deadline`?)",
        ],
    ),
    (
        "top",
        "admin: 127.0.0.1:9900",
        &[
            "f:5:8: admin: found `127.0.0.1:9900`; expected a block of keys (`bind`, `unix`, `token_file`, `health`)",
        ],
    ),
    ("top", "admin: {}", &["f:5:1: admin: key `bind` is missing"]),
    (
        "top",
        "admin: { bind: localhost:9900 }",
        &["f:5:16: admin.bind: found `localhost:9900`; expected an address with its port, …"],
    ),
    (
        "top",
        "admin: { bind: 127.0.0.1 }",
        &["f:5:16: admin.bind: found `127.0.0.1`; expected an address with its port, …"],
    ),
    (
        "top",
        "admin: { bind: 127.0.0.1:99000 }",
        &["f:5:16: admin.bind: found `127.0.0.1:99000`; expected an address with its port, …"],
    ),
    (
        "top",
        "admin: { bind: 127.0.0.1:9900, token_file: [s3cret] }",
        &["f:5:44: admin.token_file: found a list; expected a path"],
    ),
    (
        "top",
        "log: { access: file }",
        &["f:5:16: log.access: found `file`; expected `file:` followed by its value or block"],
    ),
    (
        "top",
        "log: { access: { fil: a.log } }",
        &[
            "f:5:16: log.access: unknown word `fil`; expected one of `off`, `stdout`, `file`, `syslog`, `journald` (did you mean `file`?)",
        ],
    ),
    (
        "top",
        "log: { access: { syslog: localhost }, fields: [date, cleint] }",
        &[
            "f:5:26: log.access.syslog: found `localhost`; expected the path of a socket such as `/dev/log`, or an address with its UDP port",
            "f:5:54: log.fields[1]: unknown word `cleint`; expected one of `time`, `date`, `event`, `flow`, `request_id`, `listener`, `client`, `vip`, `protocol`, `tls`, `sni`, `method`, `host`, `path`, `user_agent`, `status`, `pool`, `node`, `how`, `retries`, `bytes_up`, `bytes_down`, `seconds`, `reason`, `ended` (did you mean `client`?)",
        ],
    ),
    (
        "top",
        "log: { access: { stdout: x } }",
        &["f:5:26: log.access.stdout: found `x`; expected the word `stdout` alone"],
    ),
    (
        "top",
        "log: { query: yes }",
        &["f:5:15: log.query: found `yes`; expected `true` or `false` (did you mean `true`?)"],
    ),
    (
        "top",
        "log: { query: \"true\" }",
        &["f:5:15: log.query: found `\"true\"`; expected `true` or `false` (did you mean `true`?)"],
    ),
    (
        "top",
        "certificates: { c: { chain: good.pem } }",
        &[
            "f:5:17: certificates.c: key `key` is missing; expected `chain` and `key`, or `keystore`",
        ],
    ),
    (
        "top",
        "<<: { threads: 1 }",
        &["f:5:1: [\"<<\"]: unknown key `<<`; expected one of `admin`, …"],
    ),
    (
        "listener",
        "tls: {}",
        &["f:9:5: listeners[0].tls: key `certificates` is missing"],
    ),
    (
        "listener",
        "tls: { certificates: c, h2: 1 }",
        &[
            "f:9:26: listeners[0].tls.certificates: found `c`; expected a list, such as `[a, b]`",
            "f:9:33: listeners[0].tls.h2: found `1`; expected `true` or `false` (did you mean `true`?)",
        ],
    ),
    (
        "listener",
        "max_hidden: 32768",
        &[
            "f:9:17: listeners[0].max_hidden: found `32768`; expected a size from 4KiB to 16MiB, or a block (`bytes`, `bulk`)",
        ],
    ),
    (
        "listener",
        "max_hidden: 32 apples",
        &[
            "f:9:17: listeners[0].max_hidden: found `32 apples`; expected a size from 4KiB to 16MiB, or a block (`bytes`, `bulk`)",
        ],
    ),
    (
        "listener",
        "max_hidden: [32KiB]",
        &["f:9:17: listeners[0].max_hidden: found a list; expected a size from 4KiB to 16MiB, …"],
    ),
    (
        "listener",
        "max_hidden: { byte: 32KiB, bulk: maybe }",
        &[
            "f:9:19: listeners[0].max_hidden.byte: unknown key `byte`; expected one of `bytes`, `bulk` (did you mean `bytes`?)",
            "f:9:38: listeners[0].max_hidden.bulk: found `maybe`; expected `true` or `false`",
        ],
    ),
    (
        "listener",
        "max_hidden: { bytes: 32768 }",
        &[
            "f:9:26: listeners[0].max_hidden.bytes: found `32768`; expected a size from 4KiB to 16MiB",
        ],
    ),
    (
        "listener",
        "limits: { header: 1 }",
        &[
            "f:9:15: listeners[0].limits.header: unknown key `header`; expected one of `head`, `target`, `headers`, `http2` (did you mean `headers`?)",
        ],
    ),
    (
        "listener",
        "limits: { headers: 1.5 }",
        &[
            "f:9:24: listeners[0].limits.headers: found `1.5`; expected a whole number from 1 to 256",
        ],
    ),
    (
        "listener",
        "Max-Hidden: 32KiB",
        &[
            "f:9:5: listeners[0].Max-Hidden: unknown key `Max-Hidden`; expected one of `name`, … (did you mean `max_hidden`?)",
        ],
    ),
    (
        "listener",
        "tcp: [keepalive]",
        &[
            "f:9:10: listeners[0].tcp: found a list; expected a block of keys (`keepalive`, `user_timeout`)",
        ],
    ),
    (
        "listener",
        "plugins: { forwarded: {} }",
        &["f:9:14: listeners[0].plugins: found a block; expected a list, such as `[a, b]`"],
    ),
    (
        "listener",
        "plugins: [forwarded]",
        &[
            "f:9:15: listeners[0].plugins[0]: found `forwarded`; expected `forwarded:` followed by its value or block",
        ],
    ),
    (
        "listener",
        "plugins: [{ forward: {} }]",
        &[
            "f:9:15: listeners[0].plugins[0]: unknown word `forward`; expected one of `host_route`, … (did you mean `forwarded`?)",
        ],
    ),
    (
        "listener",
        "plugins:\n      - forwarded: {}\n        sticky_ip: {}",
        &[
            "f:10:9: listeners[0].plugins[0]: found `forwarded` and `sticky_ip` in one block; expected one of them here, and `- ` before the next",
        ],
    ),
    (
        "listener",
        "plugins: [{ forwarded: }]",
        &["f:9:26: listeners[0].plugins[0].forwarded: found nothing; expected a block …"],
    ),
    (
        "listener",
        "plugins: [~]",
        &["f:9:15: listeners[0].plugins[0]: found nothing; expected one of `host_route`, …"],
    ),
    (
        "listener",
        "plugins:\n      - forwarded: { sendr: x }",
        &["f:10:22: listeners[0].plugins[0].forwarded.sendr: unknown key `sendr`; …"],
    ),
    (
        "listeners",
        "listeners:\n  - bind: [127.0.0.1:1]\n    mode: https",
        &[
            "f:4:5: listeners[0]: key `name` is missing",
            "f:5:11: listeners[0].mode: unknown word `https`; expected one of `http`, `tcp` (did you mean `http`?)",
        ],
    ),
    (
        "listeners",
        "listeners:\n  - {}",
        &[
            "f:4:5: listeners[0]: key `name` is missing",
            "f:4:5: listeners[0]: key `bind` is missing",
            "f:4:5: listeners[0]: key `mode` is missing",
        ],
    ),
    (
        "listeners",
        "listeners:\n  - { name: a, bind: 127.0.0.1:1, mode: http, to: n }",
        &["f:4:22: listeners[0].bind: found `127.0.0.1:1`; expected a list, such as `[a, b]`"],
    ),
    (
        "listeners",
        "listeners:\n  - { name: a, bind: [127.0.0.1], mode: http, to: n }",
        &["f:4:23: listeners[0].bind[0]: found `127.0.0.1`; expected an address with its port, …"],
    ),
    (
        "listeners",
        "listeners:\n  - { name: a, bind: [\"[::1\"], mode: HTTP, to: n }",
        &[
            "f:4:23: listeners[0].bind[0]: found `[::1`; expected an address with its port, …",
            "f:4:38: listeners[0].mode: unknown word `HTTP`; expected one of `http`, `tcp` (did you mean `http`?)",
        ],
    ),
    (
        "listeners",
        "listeners:\n  a: { bind: [127.0.0.1:1], mode: http, to: n }",
        &["f:4:3: listeners: found a block; expected a list, such as `[a, b]`"],
    ),
    (
        "nodes",
        "nodes:\n  n:",
        &["f:4:4: nodes.n: found nothing; expected a block of keys (`address`, …)"],
    ),
    (
        "nodes",
        "nodes:\n  n: 127.0.0.1:2",
        &["f:4:6: nodes.n: found `127.0.0.1:2`; expected a block of keys (`address`, …)"],
    ),
    (
        "nodes",
        "nodes:\n  n: { adress: 127.0.0.1:2 }",
        &[
            "f:4:8: nodes.n.adress: unknown key `adress`; expected one of `address`, … (did you mean `address`?)",
        ],
    ),
    (
        "nodes",
        "nodes: [n]",
        &["f:3:8: nodes: found a list; expected a block of names, each with its value"],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, weight: 4294967296 }",
        &["f:4:38: nodes.n.weight: found `4294967296`; expected a whole number from 0 to 1000"],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: { http: {} } }",
        &["f:4:40: nodes.n.health.http: key `path` is missing"],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, health: { http: { path: /, status: ok, port: 65536 } } }",
        &[
            "f:4:65: nodes.n.health.http.status: found `ok`; expected a status from 200 to 599, a range such as `200-399`, or a list of both",
            "f:4:75: nodes.n.health.http.port: found `65536`; expected a whole number from 1 to 65535",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { balance: least, on_down: kill, no_node: 502 }",
        &[
            "f:6:6: pools.p.nodes: a pool without nodes; expected at least one name of `nodes`, or `discover`",
            "f:6:17: pools.p.balance: unknown word `least`; expected one of `least_flows`, `round_robin`, `random`, `hash` (did you mean `least_flows`?)",
            "f:6:33: pools.p.on_down: unknown word `kill`; expected one of `evict`, `keep`",
            "f:6:48: pools.p.no_node: found `502`; expected `503` or `close`",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: n }",
        &["f:6:15: pools.p.nodes: found `n`; expected a list, such as `[a, b]`"],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2 }\npools:\n  p: { nodes: [n], rebalance: { rate: 50, tolerance: 5, delay: 30, close: yes } }",
        &[
            "f:6:39: pools.p.rebalance.rate: found `50`; expected a rate above zero and up to 1000000/s, such as `50/s`, `30/min`",
            "f:6:54: pools.p.rebalance.tolerance: found `5`; expected a percentage from `0%` to `100%`",
            "f:6:64: pools.p.rebalance.delay: found `30`; expected a duration with its unit, such as `500ms`, `90s`, `8h`",
            "f:6:75: pools.p.rebalance.close: found `yes`; expected `true` or `false` (did you mean `true`?)",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, admit_rate: 50 }",
        &[
            "f:4:42: nodes.n.admit_rate: found `50`; expected a rate above zero and up to 1000000/s, …",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, slow_start: 0/s }",
        &[
            "f:4:42: nodes.n.slow_start: found `0/s`; expected a rate above zero and up to 1000000/s, …",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, max_flows: 5, max_flows_hard: 4 }",
        &[
            "f:4:60: nodes.n.max_flows_hard: `4` is below `max_flows`: stuck clients would be refused before new ones; expected at least 5",
        ],
    ),
    (
        "nodes",
        "nodes:\n  n: { address: 127.0.0.1:2, max_flows: 0 }",
        &["f:4:41: nodes.n.max_flows: found `0`; expected a whole number from 1"],
    ),
];
