//! One table of requests, sent over HTTP/1 and over HTTP/2. Both versions refuse the same requests, and pass
//! the others to the node byte for byte.
//!
//! Source: RFC 9110 §7.2, §8.6, §9, §10.1.1; RFC 9112 §3.2, §6; RFC 9113 §8.1, §8.2, §8.3.

mod bodies;
mod table;

use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::table::{Case, Is, TABLE};
use super::rig::{HOST, Rig};
use crate::client::raw_h2::{Field, RawH2};
use crate::deadline;

/// How long to wait whether a refused request reaches a node nevertheless.
const NOTHING: Duration = Duration::from_millis(20);

/// Aim: each row of [`TABLE`] over HTTP/1: the status, and the first line that the node reads. Fails if a row
/// is judged differently from the table.
#[tokio::test(flavor = "multi_thread")]
async fn http_1_judges_each_row() {
    let rig = Rig::start().await;
    for case in TABLE {
        let mut client = rig.plain().tcp().await;
        client.write_all(&http_1(case)).await.expect("send");
        let answer = async {
            let mut got = Vec::new();
            while memchr::memmem::find(&got, b"\r\n\r\n").is_none() {
                if !matches!(client.read_buf(&mut got).await, Ok(n) if n > 0) {
                    break;
                }
            }
            got
        };
        let (answer, node) = tokio::join!(deadline(case.name, answer), node(&rig, case, case.h1));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        let is = match status {
            Some(200) => Is::Passed,
            status => Is::Answered(status.unwrap_or(0)),
        };
        assert_eq!(is, case.h1, "{}: {answer:?}", case.name);
        check_node(case, node);
    }
}

/// Aim: the same rows over HTTP/2, all on streams of one connection, which lives on. Fails if a row is judged
/// differently from HTTP/1 and the table does not say so, or if an error of one stream ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn http_2_judges_each_row() {
    let rig = Rig::with("", "", "    limits: { http2: { resets: 1000 } }\n").await;
    let mut client = rig.client().await;
    for case in TABLE {
        let id = client.open(&http_2(case), true).await;
        let (answer, node) = tokio::join!(client.answer(id), node(&rig, case, case.h2()));
        let is = match (answer.status, answer.reset) {
            (0, Some(reason)) => Is::Reset(reason),
            (200, _) => Is::Passed,
            (status, _) => Is::Answered(status),
        };
        assert_eq!(is, case.h2(), "{}: {answer:?}", case.name);
        assert!(
            client.goaways.is_empty(),
            "{}: {:?}",
            case.name,
            client.goaways
        );
        check_node(case, node);
    }
    assert_alive(&rig, &mut client).await;
}

/// Asserts that the connection carries another request.
pub async fn assert_alive(rig: &Rig, client: &mut RawH2) {
    let node = async {
        let (mut node, _) = rig.asked().await;
        node.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
    };
    let (answer, ()) = tokio::join!(client.get(HOST, "/after"), node);
    assert_eq!(answer.status, 200, "{answer:?} {:?}", client.goaways);
}

/// Answers a request that reaches the node; returns its head, if one arrived.
async fn node(rig: &Rig, case: &Case, is: Is) -> Option<String> {
    if is != Is::Passed {
        // Bounded wait: a request reaches the node before its client is answered.
        let asked = tokio::time::timeout(NOTHING, rig.asked()).await;
        return asked.ok().map(|(_, head)| head);
    }
    let (mut node, head) = rig.asked().await;
    assert!(!head.is_empty(), "{}", case.name);
    node.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .await;
    Some(head)
}

/// Asserts that the node read what the table says.
fn check_node(case: &Case, head: Option<String>) {
    let head = head.map(|head| head.lines().next().unwrap_or_default().to_owned());
    let passed = case.h1 == Is::Passed || case.h2() == Is::Passed;
    if let Some(line) = head {
        assert!(passed, "{}: a node heard {line}", case.name);
        let target = String::from_utf8_lossy(case.target);
        let expected = format!("{} {target} HTTP/1.1", case.method);
        assert_eq!(line, expected, "{}", case.name);
    }
}

/// The row in HTTP/1. If it has a host besides the authority, its target is an absolute URL.
fn http_1(case: &Case) -> Vec<u8> {
    let mut head = format!("{} ", case.method).into_bytes();
    let host = match (case.authority, case.host) {
        (Some(authority), Some(host)) => {
            head.extend_from_slice(format!("https://{authority}").as_bytes());
            Some(host)
        }
        (one, None) | (None, one) => one,
    };
    head.extend_from_slice(case.target);
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let host = host.map(|host| ("Host", host.to_owned()));
    let fields = case.all_fields().into_iter();
    for (name, value) in host.into_iter().chain(fields) {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The row in HTTP/2.
fn http_2(case: &Case) -> Vec<Field<'static>> {
    let leak = |s: String| -> &'static [u8] { Box::leak(s.into_bytes().into_boxed_slice()) };
    let mut fields: Vec<Field<'static>> = vec![
        (b":method", leak(case.method.to_owned())),
        (b":scheme", b"https"),
    ];
    fields.extend(
        case.authority
            .map(|a| (&b":authority"[..], leak(a.to_owned()))),
    );
    fields.push((b":path", case.target));
    fields.extend(case.host.map(|h| (&b"host"[..], leak(h.to_owned()))));
    for (name, value) in case.all_fields() {
        fields.push((leak(name.to_ascii_lowercase()), leak(value)));
    }
    fields
}

/// A stream that is refused without an answer.
const MALFORMED: Is = Is::Reset(Reason::PROTOCOL_ERROR);
