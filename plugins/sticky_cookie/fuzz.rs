//! Fuzz target `token`: a client's cookies, and the token among them.
//!
//! The first bytes of an input say how a signed token is changed, the rest is a `Cookie` field. Fails where a
//! changed token is accepted, where a signed one is not, or where another cookie loses a byte.
//! Source: FAULTS D43, D45.

use std::sync::{Arc, LazyLock};

use super::header;
use super::token::{Ring, TOKEN_CHARS, Token};
use crate::api::{NodeId, PoolId};
use crate::head::{Edits, Head};

const NAME: &[u8] = b"PUSHGATE";
/// Changes of one token that an input may ask for.
const CHANGES: usize = 8;

static RING: LazyLock<Ring> = LazyLock::new(|| {
    let nodes = ["ls1".to_owned(), "ls2".to_owned()];
    let secrets = [vec![1; 32], vec![2; 32]];
    Ring::new(&secrets, &[("push", &nodes), ("other", &nodes)])
});

/// Reads `data`: a number of changes, each a place and a byte, then the field.
pub fn run(data: &[u8]) {
    let (changes, field) = match data {
        [n, rest @ ..] => {
            let bytes = 2 * (usize::from(*n) % CHANGES).min(rest.len() / 2);
            rest.split_at(bytes)
        }
        [] => return,
    };
    check_changed(changes, field);
    check_cookies(field);
}

/// Each change is one byte of the token set to another value, a byte put in, or an end cut off.
fn check_changed(changes: &[u8], field: &[u8]) {
    let token = Token {
        pool: PoolId::of("push"),
        node: NodeId::of("ls2"),
        issued: 1_800_000_000,
        salt: [7; 7],
    };
    let signed = RING.sign(&token).expect("a node of the pool");
    assert_eq!(RING.verify(&signed), Some(token));
    let mut changed = signed.to_vec();
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]);
        match changed.get_mut(at % TOKEN_CHARS) {
            Some(byte) if at < 192 => *byte = change[1],
            _ if at < 224 => changed.truncate(at % TOKEN_CHARS),
            _ => changed.insert(changed.len().min(at % TOKEN_CHARS), change[1]),
        }
    }
    for forged in [&changed, field] {
        // The fuzzer sees what the MAC is compared with, and so finds the signed one.
        if *forged != signed {
            assert_eq!(RING.verify(forged), None, "a token that nobody has signed");
        }
    }
}

/// The cookie is taken out of the field, and the others keep their bytes.
fn check_cookies(field: &[u8]) {
    let Ok(head) = Head::make_request("GET", "/", [("Cookie", field)]) else {
        return;
    };
    let found: Vec<_> = header::values(&head, NAME).map(<[u8]>::to_vec).collect();
    let others = |head: &Head| -> Vec<Vec<u8>> {
        let pairs = head.values("cookie").flat_map(|l| l.split(|b| *b == b';'));
        let pairs = pairs.map(|pair| pair.trim_ascii_start().to_vec());
        pairs
            .filter(|pair| !is_ours(pair) && !pair.is_empty())
            .collect()
    };
    let before = others(&head);
    let mut edits = Edits::new(Arc::new(head));
    header::strip(&mut edits, NAME).expect("what is left of a legal field is legal");
    let mut sent = Vec::new();
    edits.write(&mut sent);
    let left = Head::request(&sent).expect("a legal head");
    assert_eq!(header::values(&left, NAME).next(), None, "{found:?}");
    let ends = |pairs: &[Vec<u8>]| -> Vec<Vec<u8>> {
        // White space around a field is none of its value.
        pairs.iter().map(|p| p.trim_ascii_end().to_vec()).collect()
    };
    assert_eq!(ends(&others(&left)), ends(&before));
}

fn is_ours(pair: &[u8]) -> bool {
    let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
    pair.contains(&b'=') && name.trim_ascii() == NAME
}
