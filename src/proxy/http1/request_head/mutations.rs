//! Randomly damaged heads, judged by [`judge`] and by a second reader that shares no code with it.
//!
//! In: a seed. Out: no head that one reader accepts and the other refuses, except by the rules that only
//! `judge` has (limits, routing). Source: RFC 9112 §2.2, §3, §5, §6.3; RFC 9110 §5.6.2.

use super::second_reader::strict;
use super::*;

const SEEDS: &[&str] = &[
    "GET /a?b=c HTTP/1.1\r\nHost: a.b:8080\r\nAccept: */*\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nCookie: a=b; c=\"d\"\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nX: \t y \r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

/// Pieces that have made parsers disagree.
const PIECES: &[&str] = &[
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\n\n",
    "\0",
    "\x0b",
    "\x7f",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "+",
    "-",
    "0x",
    "_",
    "\r\n ",
    "\r\nContent-Length: 5",
    "\r\nContent-Length: 6",
    "\r\nTransfer-Encoding: chunked",
    "\r\nTransfer-Encoding: x",
    "\r\nHost: b",
    "Content-Length",
    "chunked",
    "identity, ",
    "HTTP/1.0",
    "HTTP/1.2",
    "\u{e9}",
    "\u{130}",
    "#",
    "@",
    "%0d%0a",
];

fn mutate(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut head = SEEDS[rng.usize(..SEEDS.len())].as_bytes().to_vec();
    for _ in 0..rng.usize(1..=3) {
        let at = rng.usize(..head.len());
        match rng.u8(..6) {
            0 => head[at] = rng.u8(..),
            1 => head.insert(at, rng.u8(..)),
            2 => drop(head.remove(at)),
            3 => head[at] ^= 0x20,
            4 => {
                let to = rng.usize(at..=head.len());
                let part = head[at..to].to_vec();
                head.splice(at..at, part);
            }
            _ => {
                let piece = PIECES[rng.usize(..PIECES.len())];
                head.splice(at..at, piece.bytes());
            }
        }
        if head.is_empty() {
            head.push(b'G');
        }
    }
    head
}

/// Judges a client's bytes. Returns the length of the head and the head, or a refusal.
fn judged(bytes: &[u8]) -> Result<(usize, RequestHead), RequestHeadError> {
    let limits = Limits::default();
    let n = end(bytes, 0, &limits)?.ok_or(Bad("unfinished"))?;
    Ok((n, judge(&bytes[..n], &limits)?))
}

/// Returns the facts of a head, without its bytes.
fn facts(head: &RequestHead) -> (&Framing, bool, bool, bool, Lines) {
    let flags = (head.websocket, head.keep, head.expects_continue);
    (&head.framing, flags.0, flags.1, flags.2, head.hop)
}

/// Aim: both readers agree. Fails, with the seed, if `judge` accepts a head that the second reader refuses or
/// frames otherwise. Fails also if `judge` refuses a legal head for its syntax or framing.
#[test]
fn two_readers_agree() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..100_000 {
        let bytes = mutate(&mut fastrand::Rng::with_seed(seed));
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        match judged(&bytes) {
            Ok((n, head)) => {
                accepted += 1;
                assert_eq!(
                    strict(&bytes[..n]),
                    Some(head.framing),
                    "{seed}: {:?}",
                    shown()
                );
            }
            Err(Bad(
                "syntax"
                | "line end"
                | "content-length"
                | "content-length twice"
                | "transfer-encoding"
                | "content-length and transfer-encoding"
                | "host twice",
            )) => {
                refused += 1;
                let n = memchr::memmem::find(&bytes, b"\r\n\r\n").map_or(bytes.len(), |i| i + 4);
                assert_eq!(strict(&bytes[..n]), None, "{seed}: {:?}", shown());
            }
            Err(_) => {}
        }
    }
    // The damage must leave enough accepted and refused heads, or the test shows nothing.
    assert!(
        accepted > 10_000 && refused > 10_000,
        "{accepted} and {refused}"
    );
}

/// Aim: the end of a head does not depend on how the bytes arrive.
#[test]
fn the_end_does_not_depend_on_the_split() {
    let limits = Limits::default();
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let bytes = mutate(&mut rng);
        let (mut got, mut search) = (0, HeadSearch::default());
        let split = loop {
            match search.end(&bytes[..got], &limits) {
                Ok(None) if got < bytes.len() => {
                    got = (got + rng.usize(1..=7)).min(bytes.len());
                }
                other => {
                    break other.and_then(|n| n.map(|n| judge(&bytes[..n], &limits)).transpose());
                }
            }
        };
        let whole = judged(&bytes).map(|(_, head)| head);
        match (&whole, &split) {
            (Ok(a), Ok(Some(b))) => assert_eq!(facts(a), facts(b), "{seed}"),
            (Err(_), Ok(None) | Err(_)) => {}
            _ => panic!(
                "{seed}: {whole:?} and {split:?}: {:?}",
                String::from_utf8_lossy(&bytes)
            ),
        }
    }
}
