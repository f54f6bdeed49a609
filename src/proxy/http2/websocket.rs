//! Turns a WebSocket over HTTP/2, an extended CONNECT, into an upgrade of HTTP/1.1 towards the node.
//!
//! In: a stream's head. Out: the lines of an upgrade with a key of our own, and the answer that this key
//! requires.
//! Source: RFC 8441 §5; RFC 6455 §4.1, §4.2.2.

use openssl::{base64, sha};

use crate::proxy::http1::request_head::Accept;

/// The constant that an answer joins to its key (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Key` of one upgrade.
#[derive(Clone, Debug)]
pub struct Key(String);

impl Key {
    /// Makes a random key.
    pub fn new() -> Self {
        Key(base64::encode_block(&fastrand::u128(..).to_be_bytes()))
    }

    /// Appends the lines that make a head an upgrade.
    pub fn append_upgrade(&self, raw: &mut Vec<u8>) {
        raw.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ");
        raw.extend_from_slice(self.0.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }

    /// Returns the `Sec-WebSocket-Accept` that the node must send for this key.
    pub fn accept(&self) -> Box<Accept> {
        let digest = sha::sha1(format!("{}{GUID}", self.0).as_bytes());
        let accept = base64::encode_block(&digest).into_bytes().try_into();
        Box::new(accept.expect("20 bytes are 28 characters of base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: the key of the example in RFC 6455 §1.3 gets its answer.
    #[test]
    fn a_key_has_one_answer() {
        let key = Key("dGhlIHNhbXBsZSBub25jZQ==".to_owned());
        assert_eq!(*key.accept(), *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
