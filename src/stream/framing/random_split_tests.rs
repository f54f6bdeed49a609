//! Random chunked bodies, legal and damaged, in random splits. Each must give the same outcome as byte by
//! byte, and as a plain reader of the whole body.
//!
//! Source: RFC 9112 §7.1.

use super::plain::plain;
use super::*;

/// Returns a random chunked body.
fn body(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.usize(..4) {
        let data: Vec<u8> = (0..rng.usize(1..40))
            .map(|_| *rng.choice(b"a0\r\n;:").expect("not empty"))
            .collect();
        let zeros = "0".repeat(rng.usize(..3));
        let extension = *rng
            .choice(&["", ";a", ";a=\"b;c\"", ";"])
            .expect("not empty");
        out.extend(format!("{zeros}{:X}{extension}\r\n", data.len()).into_bytes());
        out.extend(data);
        out.extend(b"\r\n");
    }
    let trailer = *rng
        .choice(&["", "X: y\r\n", "X: y\r\nZ:\r\n", "Host: a\r\n"])
        .expect("not empty");
    out.extend(format!("0\r\n{trailer}\r\n").into_bytes());
    out
}

fn damage(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(..3) {
        let at = rng.usize(..bytes.len());
        match rng.u8(..3) {
            0 => bytes[at] = rng.u8(..),
            1 => bytes.insert(at, *rng.choice(b"\r\n0fx;_+- :").expect("not empty")),
            _ if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => {}
        }
    }
}

/// Feeds `bytes` in pieces of at most `most`; returns how many belong to the message, and whether it is
/// complete.
fn feed(bytes: &[u8], rng: &mut fastrand::Rng, most: usize) -> Result<(usize, bool), FramingError> {
    let (mut framing, mut used) = (Framing::chunked(), 0);
    while used < bytes.len() && !framing.is_done() {
        let n = rng.usize(1..=most).min(bytes.len() - used);
        used += framing.advance(&bytes[used..used + n])?;
    }
    Ok((used, framing.is_done()))
}

/// Fails, with the seed, if a split changes the outcome, or if a message ends at another byte than the plain
/// reader finds.
#[test]
fn outcome_is_the_same_in_every_split() {
    let (mut whole, mut faulty) = (0, 0);
    for seed in 0..100_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = body(&mut rng);
        damage(&mut rng, &mut bytes);
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        let bytewise = feed(&bytes, &mut rng, 1);
        let shown = || format!("{seed}: {:?}", String::from_utf8_lossy(&bytes));
        for most in [3, 17, bytes.len()] {
            assert_eq!(feed(&bytes, &mut rng, most), bytewise, "{}", shown());
        }
        match bytewise {
            Ok((end, true)) => {
                whole += 1;
                assert_eq!(plain(&bytes), Some(end), "{}", shown());
            }
            Ok((all, false)) => assert_eq!(all, bytes.len(), "{}", shown()),
            Err(_) => faulty += 1,
        }
    }
    assert!(whole > 20_000 && faulty > 20_000, "{whole} and {faulty}");
}
