//! Keeps addresses and ids of clients out of the store: names of keys are keyed hashes, and messages are sealed.
//!
//! The key is made of the prefix and the password of the store, which all edges of a site share.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rand::rand_bytes;
use openssl::sha::sha256;
use openssl::sign::Signer;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};

/// Bytes of a keyed hash in the name of a key: no two clients of a site meet.
const HASH: usize = 16;
/// Bytes of a nonce and of a tag of AES-256-GCM.
const NONCE: usize = 12;
const TAG: usize = 16;

/// The key of a site.
pub(super) struct SiteKey {
    hash: PKey<Private>,
    seal: [u8; 32],
}

impl SiteKey {
    /// Makes the key of the site with this secret.
    pub fn new(secret: &str) -> Result<SiteKey, ErrorStack> {
        let of = |purpose: &str| sha256(format!("pushgate site {purpose}\0{secret}").as_bytes());
        Ok(SiteKey {
            hash: PKey::hmac(&of("names"))?,
            seal: of("messages"),
        })
    }

    /// Returns the hash of `name`, in hexadecimal digits.
    pub fn hash(&self, name: &[u8]) -> Result<String, ErrorStack> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.hash)?;
        let hash = signer.sign_oneshot_to_vec(name)?;
        Ok(hash.iter().take(HASH).map(|b| format!("{b:02x}")).collect())
    }

    /// Seals a message.
    pub fn seal(&self, message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let (mut nonce, mut tag) = ([0; NONCE], [0; TAG]);
        rand_bytes(&mut nonce)?;
        let cipher = Cipher::aes_256_gcm();
        let sealed = encrypt_aead(cipher, &self.seal, Some(&nonce), &[], message, &mut tag)?;
        Ok([&nonce[..], &tag[..], &sealed].concat())
    }

    /// Opens a message; `None`: no edge of this site has sealed it.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (tag, rest) = rest.split_first_chunk::<TAG>()?;
        decrypt_aead(
            Cipher::aes_256_gcm(),
            &self.seal,
            Some(nonce),
            &[],
            rest,
            tag,
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: edges with the same secret understand each other, others do not, and nothing shows the client. Fails if
    /// a name or message is in clear.
    #[test]
    fn only_the_site_can_read() {
        let key = |secret| SiteKey::new(secret).expect("a key");
        let (one, same, other) = (key("a\0b"), key("a\0b"), key("a\0c"));
        let name = b"203.0.113.9";
        assert_eq!(
            one.hash(name).expect("hash"),
            same.hash(name).expect("hash")
        );
        assert_ne!(
            one.hash(name).expect("hash"),
            other.hash(name).expect("hash")
        );
        assert_eq!(one.hash(name).expect("hash").len(), 32);
        let sealed = one.seal(name).expect("sealed");
        assert!(memchr::memmem::find(&sealed, name).is_none());
        assert_eq!(same.open(&sealed).as_deref(), Some(&name[..]));
        assert_eq!(other.open(&sealed), None);
        assert_eq!(one.open(&sealed[..20]), None);
    }
}
