//! Answers that no node should give, one for each path: `/fault/NAME`.
//!
//! In: requests. Out: the broken bytes of FAULTS D62 (heads and bodies) and D17 (upgrades).

use std::io;

use super::endpoints::whole;
use super::{Conn, Request};

/// Sends the fault that the path names; then the connection ends, unless the fault is in its framing.
pub async fn serve(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let fault = request.path().trim_start_matches("/fault/");
    match fault {
        "reset" => {
            conn.reset_on_drop();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        "error" => return whole(conn, "500 Internal Server Error", "broken\n").await,
        "silence" => return Err(conn.ended().await),
        "big-head" => {
            let filler = format!("X-Filler: {}\r\n", "x".repeat(1 << 10)).repeat(1 << 10);
            conn.send(format!(
                "HTTP/1.1 200 OK\r\n{filler}Content-Length: 0\r\n\r\n"
            ))
            .await?;
        }
        "interim" | "interim-flood" => {
            let flood = fault == "interim-flood";
            for _ in 0..if flood { 10_000 } else { 50 } {
                conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                    .await?;
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
                .await?;
        }
        "long-record" => conn.send(long_record()).await?,
        name => match bytes(name) {
            Some(bytes) => conn.send(bytes).await?,
            None => {
                conn.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    .await?
            }
        },
    }
    // Later bytes on the same connection show whether the edge mixes them with the next answer.
    Ok(request.query("keep").is_some())
}

/// An answer and a surplus one in one write, so under TLS in one record. The first is longer than what an
/// edge reads with a head.
fn long_record() -> String {
    let head = "HTTP/1.1 200 OK\r\nContent-Length:";
    let body = "x".repeat(6000);
    format!("{head} 6000\r\n\r\n{body}{head} 6\r\n\r\nstolen")
}

/// The fixed faults by name.
fn bytes(name: &str) -> Option<&'static str> {
    FAULTS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, bytes)| *bytes)
}

/// Names of the fixed faults, and the bytes to send.
pub const FAULTS: &[(&str, &str)] = &[
    // D62: heads.
    (
        "status-line",
        "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    ),
    ("not-http", "220 mail.example ESMTP\r\n"),
    ("short-head", "HTTP/1.1 200 OK\r\nContent-Le"),
    (
        "two-lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nok\n12",
    ),
    // D62: bodies.
    (
        "short-body",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok\n",
    ),
    (
        "long-body",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
    ),
    (
        "bad-chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\nzz\r\nbad\r\n0\r\n\r\n",
    ),
    (
        "cut-chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n10\r\ncut",
    ),
    (
        "no-last-chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n",
    ),
    (
        "head-after-body",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\nX-Late: 1\r\n\r\n",
    ),
    // D17: upgrades.
    (
        "upgrade-200",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n",
    ),
    (
        "upgrade-other",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nother",
    ),
    (
        "upgrade-unasked",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw",
    ),
    (
        "upgrade-body",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nok\n",
    ),
];
