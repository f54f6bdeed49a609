//! Makes the key and the request of a certificate, and judges what the authority sends for it.
//!
//! In: host names; then a chain. Out: a private key that never leaves this machine, a request in DER; whether the
//! chain is what was ordered. Source: RFC 2986; RFC 8555 §7.4.

use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::stack::Stack;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name, X509ReqBuilder};

use crate::credentials::Issued;

/// Makes a new P-256 key, which every client accepts and which shakes hands fastest, and a request for `names`.
pub fn request(names: &[String]) -> Result<(PKey<Private>, Vec<u8>), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut made = X509ReqBuilder::new()?;
    made.set_version(0)?;
    // Clients have ignored the subject for years, and a common name may have only 64 bytes.
    made.set_subject_name(X509Name::builder()?.build().as_ref())?;
    made.set_pubkey(&key)?;
    let mut san = SubjectAlternativeName::new();
    for name in names {
        san.dns(name);
    }
    let mut extensions = Stack::new()?;
    extensions.push(san.build(&made.x509v3_context(None))?)?;
    made.add_extensions(&extensions)?;
    made.sign(&key, MessageDigest::sha256())?;
    Ok((key, made.build().to_der()?))
}

/// Judges the content of a certificate's file before it replaces another one: `whole` has the chain, `key` is ours.
///
/// Errors: the chain is not for this key or these names, or has ended at `now`, in seconds since 1970.
pub fn judge(
    whole: &str,
    key: &PKey<Private>,
    names: &[String],
    now: i64,
) -> Result<Issued, String> {
    let issued = Issued::of(whole.as_bytes()).ok_or("its answer has no certificate")?;
    let leaf = X509::from_pem(whole.as_bytes()).and_then(|leaf| leaf.public_key());
    if !leaf.is_ok_and(|public| public.public_eq(key)) {
        return Err("its certificate is for another key".into());
    }
    if let Some(name) = names.iter().find(|name| !issued.names.contains(name)) {
        return Err(format!("its certificate does not cover {name}"));
    }
    match issued.until > now {
        true => Ok(issued),
        false => {
            Err("its certificate has already ended; is the clock of this machine right?".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::x509::X509Req;

    use super::*;

    /// Aim: a request names what was asked for and is signed by the new key, and a chain for another key is refused.
    /// Fails if a mixed-up answer of an authority would be served.
    #[test]
    fn a_request_and_its_answer() {
        let names = ["a.example".to_owned(), "b.example".to_owned()];
        let (key, der) = request(&names).expect("a request");
        let read = X509Req::from_der(&der).expect("DER");
        assert!(read.verify(&key).expect("a signature"));
        let text = String::from_utf8_lossy(&read.to_text().expect("text")).into_owned();
        assert!(text.contains("DNS:a.example, DNS:b.example"), "{text}");
        let (other, _) = request(&names).expect("a request");
        let mut leaf = X509::builder().expect("a builder");
        leaf.set_version(2).expect("a version");
        leaf.set_pubkey(&other).expect("a key");
        let date = |days| Asn1Time::days_from_now(days).expect("a date");
        leaf.set_not_before(&date(0)).expect("a date");
        leaf.set_not_after(&date(1)).expect("a date");
        leaf.sign(&other, MessageDigest::sha256()).expect("signed");
        let chain = leaf.build().to_pem().expect("PEM");
        let chain = String::from_utf8(chain).expect("text");
        let said = |key, text: &str| judge(text, key, &names, 0).expect_err("refused");
        assert_eq!(said(&key, "no PEM"), "its answer has no certificate");
        assert_eq!(said(&key, &chain), "its certificate is for another key");
        assert!(said(&other, &chain).contains("cover a.example"));
    }
}
