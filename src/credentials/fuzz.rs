//! Fuzz target `keystore`: the PKCS#12 keystore of a push server.
//!
//! Fails if a keystore that opens has no certificate, another certificate's key, or a chain out of order.
//! Source: RFC 7292.

use std::path::Path;

use super::aliases::chosen;
use super::chain::signed;
use super::keystore::Keystore;

/// Reads `data` as a keystore.
pub fn run(data: &[u8]) {
    let path = Path::new("push.keystore");
    let Ok(store) = Keystore::opened(data, path, "changeit") else {
        return;
    };
    let Ok(all) = chosen(path, store, None, 0) else {
        return;
    };
    assert!(!all.is_empty(), "a keystore that opens has a key");
    for material in all {
        let (leaf, issuers) = (&material.chain.leaf, &material.chain.issuers);
        if let Ok(public) = leaf.public_key() {
            assert!(public.public_eq(&material.key), "the key of another");
        }
        let subjects = std::iter::once(leaf).chain(issuers);
        for (subject, issuer) in subjects.zip(issuers) {
            assert!(signed(subject, issuer), "a chain out of order");
        }
    }
}
