//! Clients that speak HTTP/1.0, with Host and without, for one request and for more.
//!
//! Source: RFC 9112 §3.2 (Host), §9.3 and appendix C.2.2 (persistence); RFC 9110 §7.6.3.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use super::{HOST, Scripted, until, values};
use crate::deadline;

/// Three framings of one body, by path.
fn framings(head: &str) -> Vec<u8> {
    let text = match head.split(' ').nth(1) {
        Some("/chunked") => {
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3;x\r\ndef\r\n0\r\nX-Sum: 6\r\n\r\n"
        }
        _ => "Content-Length: 6\r\n\r\nabcdef",
    };
    format!("HTTP/1.1 200 OK\r\n{text}").into_bytes()
}

fn request(path: &str, host: bool, keep: bool) -> String {
    let host = if host {
        format!("Host: {HOST}\r\n")
    } else {
        String::new()
    };
    let keep = if keep {
        "Connection: Keep-Alive\r\n"
    } else {
        ""
    };
    format!("GET {path} HTTP/1.0\r\n{host}{keep}\r\n")
}

/// Aim: HTTP/1.0 is served with Host and without. The edge keeps the connection, and announces that, exactly
/// if the client asked for it and can see the answer's end. Source: RFC 9112 §9.3. Fails if a request without
/// Host is refused, if a connection is kept unasked or closed although promised, or if the node gets an
/// illegal request.
#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_with_and_without_host_and_keep_alive() {
    let it = Scripted::start(framings).await;
    for path in ["/length", "/chunked"] {
        for (host, asked) in [(true, true), (true, false), (false, true), (false, false)] {
            let what = format!("{path}, Host {host}, keep-alive {asked}");
            let kept = asked && path == "/length";
            let mut client = it.plain().tcp().await;
            for n in 0..2 {
                let sent = request(path, host, asked);
                client.write_all(sent.as_bytes()).await.expect("send");
                let answer = until(&mut client, b"abcdef").await;
                let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
                assert!(answer.ends_with("\r\n\r\nabcdef"), "{what}: {answer:?}");
                assert!(
                    values(&answer, "transfer-encoding").is_empty(),
                    "{what}: {answer}"
                );
                let says = values(&answer, "connection").contains(&"keep-alive");
                assert_eq!(says, kept, "{what}, request {n}: {answer}");
                if !kept {
                    let end = deadline(&what, client.read(&mut [0])).await;
                    assert_eq!(end.expect("an orderly end"), 0, "{what}");
                    break;
                }
            }
            read_by_a_node(&it, &what, host);
        }
    }
}

/// Asserts that the last head the node got is legal in the version it names.
fn read_by_a_node(it: &Scripted, what: &str, host: bool) {
    let heads = it.heads();
    let head = String::from_utf8_lossy(&heads[heads.len() - 1]).to_ascii_lowercase();
    let hosts = values(&head, "host");
    let modern = head
        .lines()
        .next()
        .is_some_and(|line| line.ends_with("http/1.1"));
    assert!(
        !modern || hosts.len() == 1,
        "{what}: HTTP/1.1 without Host: {head}"
    );
    if host {
        assert_eq!(hosts, [HOST], "{what}: {head}");
    }
}
