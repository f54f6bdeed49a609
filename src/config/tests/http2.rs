//! HTTP/2 and ALPN: keys that contradict their listener, limits out of bounds.

use super::{Case, prints};

#[test]
fn keys_of_http_2_fit_their_listener() {
    prints(CASES);
}

/// Base, added text, lines printed; `…` stands for any text.
const CASES: &[Case] = &[
    (
        "listener",
        "tls: { certificates: [good], alpn: h2 }",
        &[
            "f:9:34: listeners[0].tls.alpn: this listener speaks HTTP itself; expected `h2` instead, or `mode: tcp`",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], h2: false, h2_websocket: true }",
        &[
            "f:9:45: listeners[0].tls.h2_websocket: no HTTP/2 is spoken here; expected `h2: true` beside it, in a listener of `mode: http`",
        ],
    ),
    (
        "listeners",
        "certificates: { good: { chain: good.pem, key: good.key } }\nlisteners:\n\
         - { name: a, bind: [127.0.0.1:1], mode: tcp, to: n, tls: { certificates: [good], alpn: [] } }\n\
         - { name: b, bind: [127.0.0.1:2], mode: tcp, to: n, tls: { certificates: [good], alpn: [h2, \"\"] } }\n\
         - { name: c, bind: [127.0.0.1:3], mode: tcp, to: n, tls: { certificates: [good], h2_websocket: true } }",
        &[
            "f:5:…: listeners[0].tls.alpn: an empty list; expected names of protocols, each of 1 to 255 bytes, such as `h2` and `http/1.1`",
            "f:6:…: listeners[1].tls.alpn[1]: found ``; expected names of protocols, each of 1 to 255 bytes, such as `h2` and `http/1.1`",
            "f:7:…: listeners[2].tls.h2_websocket: no HTTP/2 is spoken here; expected `h2: true` beside it, in a listener of `mode: http`",
        ],
    ),
    (
        "listener",
        "tls: { certificates: [good], alpn: { h2: 1 } }",
        &[
            "f:9:40: listeners[0].tls.alpn: … expected a protocol's name, such as `h2`, or a list of them",
        ],
    ),
    (
        "listener",
        "limits: { http2: { streams: 0, header_table: 65KiB, resets: 9, pings: 1000001, settings: 0, empty_frames: many } }",
        &[
            "f:9:33: listeners[0].limits.http2.streams: found `0`; expected a whole number from 1 to 10000",
            "f:9:50: listeners[0].limits.http2.header_table: found `65KiB`; expected a size from 0B to 64KiB",
            "f:9:65: listeners[0].limits.http2.resets: found `9`; expected a whole number from 10 to 1000000",
            "f:9:75: listeners[0].limits.http2.pings: found `1000001`; expected a whole number from 10 to 1000000",
            "f:9:94: listeners[0].limits.http2.settings: found `0`; expected a whole number from 10 to 1000000",
            "f:9:111: listeners[0].limits.http2.empty_frames: found `many`; expected a whole number from 10 to 1000000",
        ],
    ),
];
