//! Heads that arrive byte by byte, as an attacker sends them: each byte must cost the same, however many came
//! before it.

use std::hint::black_box;

use pushgate::config::Limits;
use pushgate::listener::client_hello::HelloParser;
use pushgate::proxy::http1::request_head::HeadSearch;

use super::{Case, case};

/// Bytes of each head.
const BYTES: usize = 4 * 1024;
/// Bytes of each line of the request's head.
const LINE: usize = 100;

/// Adds the cases of a request's head and of a ClientHello. Neither is ever whole.
pub fn add(all: &mut Vec<Case>) {
    let limits = Limits::default();
    let request = request();
    case(all, "request_head/4 KiB byte by byte", move || {
        let mut search = HeadSearch::default();
        for n in 1..=request.len() {
            let end = search.end(black_box(&request[..n]), &limits);
            assert_eq!(end.ok(), Some(None));
        }
    });
    let hello = hello();
    case(all, "client_hello/4 KiB byte by byte", move || {
        let mut parser = HelloParser::default();
        for n in 1..=hello.len() {
            assert_eq!(parser.parse(black_box(&hello[..n])), None);
        }
    });
}

fn request() -> Vec<u8> {
    let line = format!("X-Filler: {}\r\n", "a".repeat(LINE - 12));
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    head.extend(line.bytes().cycle().take(BYTES - head.len()));
    head
}

/// Begins a ClientHello of 16 KiB, in records of one byte.
fn hello() -> Vec<u8> {
    let message = [1, 0, 0x40, 0].into_iter().chain(std::iter::repeat(0));
    let records = message.flat_map(|byte| [22, 3, 1, 0, 1, byte]);
    records.take(BYTES).collect()
}
