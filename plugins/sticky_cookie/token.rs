//! Signs and verifies the token in the cookie: the node a client is stuck to, and since when.
//!
//! 36 bytes, 48 characters of base64url: version 1 | node id 8 | issued-at 4 | salt 7 | MAC 16. The node id is
//! keyed, so that nobody can derive an address or name from it. The MAC is HMAC-SHA-256 cut to 128 bits (RFC 2104
//! §5). 36 is divisible by three, so the base64 has no unused bits: one token has one spelling. The last 10 bits
//! of the salt are the milliseconds of issued-at.
//! Source: FAULTS D43.

use std::time::Duration;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::api::{NodeId, PoolId};

/// Characters of a token; longer or shorter text is not a token.
pub const TOKEN_CHARS: usize = 48;

const TOKEN_BYTES: usize = 36;
const MAC_BYTES: usize = 16;
const BODY_BYTES: usize = TOKEN_BYTES - MAC_BYTES;
const VERSION: u8 = 1;

/// Strict: no padding and no unused bits, so that a token has only one spelling.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Pool from which the node was chosen.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// When the node was chosen, in seconds since 1970.
    pub issued: u64,
    /// Random number that spreads expiry and chooses the share that a rebalance forgets. Its last 10 bits are
    /// the milliseconds of the date.
    pub salt: [u8; 7],
}

impl Token {
    /// Returns when the assignment was learned, since 1970, to the millisecond. An edge of an earlier release
    /// signs random bits there; its tokens seem up to a second younger than they are.
    pub fn learned(&self) -> Duration {
        let [.., high, low] = self.salt;
        let millis = u64::from(high & 0b11) << 8 | u64::from(low);
        Duration::from_secs(self.issued) + Duration::from_millis(millis.min(999))
    }
}

/// Returns the salt of a token that is learned at `at`, since 1970. It has the form in which edges of earlier
/// releases read tokens, so that edges can be upgraded one by one.
pub fn dated(salt: [u8; 7], at: Duration) -> [u8; 7] {
    let millis = at.subsec_millis().to_be_bytes();
    let [a, b, c, d, e, high, _] = salt;
    [a, b, c, d, e, high & !0b11 | millis[2], millis[3]]
}

/// One key, and the ids that it gives to every node of every pool.
struct Key {
    /// Keyed once: cloning it saves two of four SHA-256 compressions for each token (the two that key the HMAC).
    mac: Hmac<Sha256>,
    /// Sorted by id.
    ids: Vec<(u64, PoolId, NodeId)>,
}

/// The key ring: the first key signs, all keys verify, so that keys can be rotated edge by edge.
pub struct Ring(Vec<Key>);

impl Ring {
    /// Makes a ring of `secrets` for `pools` (name and names of nodes).
    pub fn new(secrets: &[Vec<u8>], pools: &[(&str, &[String])]) -> Self {
        Ring(secrets.iter().map(|s| Key::new(s, pools)).collect())
    }

    /// Signs `token`; `None` if its node is not in its pool.
    pub fn sign(&self, token: &Token) -> Option<[u8; TOKEN_CHARS]> {
        let key = self.0.first()?;
        let mut raw = [0; TOKEN_BYTES];
        raw[0] = VERSION;
        raw[1..9].copy_from_slice(&key.id(token.pool, token.node)?.to_be_bytes());
        // Four bytes last until 2106; a later clock gives no token.
        let issued = u32::try_from(token.issued).ok()?;
        raw[9..13].copy_from_slice(&issued.to_be_bytes());
        raw[13..BODY_BYTES].copy_from_slice(&token.salt);
        let mac = key.over(&raw[..BODY_BYTES]).finalize().into_bytes();
        raw[BODY_BYTES..].copy_from_slice(&mac[..MAC_BYTES]);
        let mut text = [0; TOKEN_CHARS];
        BASE64.encode_slice(raw, &mut text).ok()?;
        Some(text)
    }

    /// Returns the token in `text` if one of the ring's keys signed it and its node still exists. Compares
    /// the MAC in constant time and allocates nothing.
    pub fn verify(&self, text: &[u8]) -> Option<Token> {
        // Checks the length first, so that 10 KiB of forgery costs no decoding.
        if text.len() != TOKEN_CHARS {
            return None;
        }
        let mut raw = [0; TOKEN_BYTES];
        if BASE64.decode_slice_unchecked(text, &mut raw).ok()? != TOKEN_BYTES || raw[0] != VERSION {
            return None;
        }
        let (body, mac) = raw.split_at(BODY_BYTES);
        let key = self
            .0
            .iter()
            .find(|k| k.over(body).verify_truncated_left(mac).is_ok())?;
        let id = u64::from_be_bytes(body[1..9].try_into().ok()?);
        let at = key.ids.binary_search_by_key(&id, |e| e.0).ok()?;
        let (_, pool, node) = *key.ids.get(at)?;
        Some(Token {
            pool,
            node,
            issued: u32::from_be_bytes(body[9..13].try_into().ok()?).into(),
            salt: body[13..].try_into().ok()?,
        })
    }
}

impl Key {
    fn new(secret: &[u8], pools: &[(&str, &[String])]) -> Self {
        let derive = |what: &[u8]| {
            keyed(
                keyed(secret)
                    .chain_update(what)
                    .finalize()
                    .into_bytes()
                    .as_slice(),
            )
        };
        let id_mac = derive(b"pushgate sticky_cookie 1 node id");
        let mut ids = Vec::new();
        for (pool, nodes) in pools {
            for node in *nodes {
                // The length distinguishes `ab`+`c` from `a`+`bc`.
                let digest = id_mac
                    .clone()
                    .chain_update((pool.len() as u64).to_be_bytes())
                    .chain_update(pool)
                    .chain_update(node)
                    .finalize()
                    .into_bytes();
                let id = digest.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b));
                ids.push((id, PoolId::of(pool), NodeId::of(node)));
            }
        }
        ids.sort_unstable();
        let mac = derive(b"pushgate sticky_cookie 1 token");
        Key { mac, ids }
    }

    fn over(&self, body: &[u8]) -> Hmac<Sha256> {
        self.mac.clone().chain_update(body)
    }

    /// Returns the id of a node. Called only when a token is signed, so scanning some dozen nodes is cheap enough.
    fn id(&self, pool: PoolId, node: NodeId) -> Option<u64> {
        let of = |e: &&(u64, PoolId, NodeId)| e.1 == pool && e.2 == node;
        self.ids.iter().find(of).map(|e| e.0)
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes keys of every length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn ring(secrets: &[&[u8]]) -> Ring {
        let secrets: Vec<_> = secrets.iter().map(|s| s.to_vec()).collect();
        let nodes = ["ls1".to_owned(), "ls2".to_owned()];
        Ring::new(&secrets, &[("push", &nodes), ("other", &nodes)])
    }

    fn token(rng: &mut Rng) -> Token {
        let mut salt = [0; 7];
        salt.copy_from_slice(&rng.next().to_be_bytes()[..7]);
        Token {
            pool: PoolId::of("push"),
            node: NodeId::of("ls2"),
            issued: rng.next() >> 32,
            salt,
        }
    }

    #[test]
    fn one_key_agrees_and_a_ring_rotates() {
        let mut rng = Rng(1);
        let (old, both, new) = (ring(&[b"old"]), ring(&[b"new", b"old"]), ring(&[b"new"]));
        for _ in 0..1_000 {
            let t = token(&mut rng);
            let by_old = old.sign(&t).expect("old signs");
            assert_eq!(
                ring(&[b"old"]).verify(&by_old),
                Some(t),
                "another process, same key"
            );
            assert_eq!(both.verify(&by_old), Some(t), "second key verifies");
            assert_eq!(new.verify(&by_old), None, "key removed");
            let by_both = both.sign(&t).expect("ring signs");
            assert_eq!(new.verify(&by_both), Some(t), "first key signs");
        }
        let foreign = Token {
            node: NodeId::of("ls9"),
            ..token(&mut rng)
        };
        assert_eq!(old.sign(&foreign), None, "not of the pool");
    }

    #[test]
    fn ids_tell_pools_apart_and_hide_names() {
        let r = ring(&[b"k"]);
        let t = token(&mut Rng(2));
        let other = Token {
            pool: PoolId::of("other"),
            ..t
        };
        let signed = r.sign(&other).expect("signs");
        assert_eq!(r.verify(&signed), Some(other));
        assert_ne!(r.sign(&t), Some(signed));
        let key = |s: &[u8]| ring(&[s]).0[0].ids.clone();
        assert_ne!(key(b"k")[0].0, key(b"l")[0].0, "ids depend on the key");
    }

    /// Aim: the date of a token has milliseconds, and all random bits but ten stay. Fails if an age is off by a
    /// second, or if an earlier release would refuse the token.
    #[test]
    fn a_token_is_dated_to_the_millisecond() {
        let mut rng = Rng(6);
        for millis in [0, 1, 255, 256, 999, 1_000, 1_800_000_000_123] {
            let (at, plain) = (Duration::from_millis(millis), token(&mut rng));
            let t = Token {
                issued: at.as_secs(),
                salt: dated(plain.salt, at),
                ..plain
            };
            assert_eq!(t.learned(), at);
            assert_eq!(
                (t.salt[..5].to_vec(), t.salt[5] >> 2),
                (plain.salt[..5].to_vec(), plain.salt[5] >> 2)
            );
        }
        let old = Token {
            salt: [0xff; 7],
            issued: 5,
            ..token(&mut rng)
        };
        assert_eq!(old.learned(), Duration::from_millis(5_999));
    }

    #[test]
    fn another_version_is_not_read_as_ours() {
        let r = ring(&[b"k"]);
        let mut raw = [0; TOKEN_BYTES];
        let good = r.sign(&token(&mut Rng(4))).expect("signs");
        BASE64.decode_slice(good, &mut raw).expect("decodes");
        raw[0] = VERSION + 1;
        let mac = r.0[0].over(&raw[..BODY_BYTES]).finalize().into_bytes();
        raw[BODY_BYTES..].copy_from_slice(&mac[..MAC_BYTES]);
        assert_eq!(r.verify(BASE64.encode(raw).as_bytes()), None);
    }

    /// FAULTS D43. Without the MAC check, every mutation that spares the node id would be accepted.
    #[test]
    fn a_million_mutated_tokens_are_rejected() {
        let r = ring(&[b"one", b"two"]);
        let mut rng = Rng(3);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for round in 0..1_000_000 {
            // Signing a token for each round would double the time; one token serves 64 mutations.
            let mut rng_token = Rng(round / 64);
            let good = r.sign(&token(&mut rng_token)).expect("signs");
            let mut bad = good.to_vec();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bad.len().max(1));
                match rng.below(8) {
                    0 => bad.truncate(at),
                    1 => bad.insert(at, letters[rng.below(64)]),
                    2 => bad.push(b'='),
                    3 if at < bad.len() => bad[at] = rng.next() as u8,
                    _ if at < bad.len() => bad[at] = letters[rng.below(64)],
                    _ => {}
                }
            }
            if bad != good {
                assert_eq!(r.verify(&bad), None, "{bad:?} from {good:?}");
            }
        }
    }
}
