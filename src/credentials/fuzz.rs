//! Fuzz target `keystore`: the PKCS#12 keystore of a push server.
//!
//! Fails if a keystore that opens has no certificate, another certificate's key, or a chain out of order.
//! Source: RFC 7292.

use std::path::Path;

use super::files::{opened, signed};

/// Reads `data` as a keystore.
pub fn run(data: &[u8]) {
    let Ok(material) = opened(data, Path::new("push.keystore"), "changeit") else {
        return;
    };
    let leaf = material.chain.first().expect("a keystore that opens");
    if let Ok(public) = leaf.public_key() {
        assert!(public.public_eq(&material.key), "the key of another");
    }
    for pair in material.chain.windows(2) {
        assert!(signed(&pair[0], &pair[1]), "a chain out of order");
    }
}
