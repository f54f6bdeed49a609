//! The proof that a name leads to this edge: a text for HTTP, a certificate for TLS.
//!
//! In: an authority's token with our account's mark. Out: what a listener answers. Nothing of it is secret.
//! Source: RFC 8555 §8.1, §8.3; RFC 8737 §3.

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::ssl::{AlpnError, SslAcceptor, SslContext, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Extension};
use serde::{Deserialize, Serialize};

/// Name of the protocol of this handshake (RFC 8737 §6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";
/// Object id of `acmeIdentifier` (RFC 8737 §6.1).
const IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";
/// Longest token that is taken for one, in bytes; Let's Encrypt's have 43.
const MAX_TOKEN: usize = 128;
/// How long the certificate of a handshake is valid, in days: longer than an order takes.
const DAYS: u32 = 1;

/// An open challenge with its proof.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The authority's random word; it also names the file of the challenge.
    pub token: String,
    /// The host name that is proved.
    pub name: String,
    /// Token and mark of our account: the answer over HTTP.
    pub authorization: String,
}

impl Proof {
    /// Whether `token` has the form of one, so that it can name a file: base64url, not empty.
    pub fn is_token(token: &str) -> bool {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(legal)
    }

    /// Makes the context of the handshake that proves the name: a certificate that signs itself and has the hash of
    /// the proof in it. It chooses the protocol `acme-tls/1` and no other.
    pub(super) fn context(&self) -> Result<SslContext, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut leaf = X509::builder()?;
        leaf.set_version(2)?;
        leaf.set_pubkey(&key)?;
        leaf.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
        leaf.set_not_after(Asn1Time::days_from_now(DAYS)?.as_ref())?;
        let mut name = SubjectAlternativeName::new();
        name.dns(&self.name);
        let name = name.build(&leaf.x509v3_context(None, None))?;
        leaf.append_extension(name)?;
        // An octet string of 32 bytes.
        let hash = [&[0x04, 32][..], &sha256(self.authorization.as_bytes())].concat();
        let value = Asn1OctetString::new_from_bytes(&hash)?;
        let oid = Asn1Object::from_str(IDENTIFIER)?;
        leaf.append_extension(X509Extension::new_from_der(&oid, true, &value)?)?;
        leaf.sign(&key, MessageDigest::sha256())?;
        let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        context.set_private_key(&key)?;
        context.set_certificate(&leaf.build())?;
        // The second ClientHello after a HelloRetryRequest may offer others than the first.
        context.set_alpn_select_callback(|_, offered| match offered.split_first() {
            Some((_, only)) if only == PROTOCOL => Ok(only),
            _ => Err(AlpnError::ALERT_FATAL),
        });
        Ok(context.build().into_context())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a token can name a file of the folder and nothing else. Fails if a path passes.
    #[test]
    fn tokens_are_words() {
        let long = "a".repeat(MAX_TOKEN + 1);
        for (token, expected) in [
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a.pem", false),
            ("é", false),
            (&long, false),
            ("DGyRejmCefe7v4NfDGDKfA", true),
            ("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA", true),
        ] {
            assert_eq!(Proof::is_token(token), expected, "{token}");
        }
    }
}
