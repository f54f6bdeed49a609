//! Stands in for a certificate that no authority has issued yet, so that its listener can start.
//!
//! In: host names. Out: a certificate that signs itself and ended in 1970. No client accepts it, wherever it is
//! served, and each certificate that is valid comes before it.

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};

/// Its common name, for whoever looks at it.
const NAME: &str = "Pushgate placeholder, no certificate issued yet";
/// End of its validity, in seconds since 1970.
const UNTIL: i64 = 86_400;

/// Makes a placeholder for `names`.
pub(super) fn make(names: &[String]) -> Result<(X509, PKey<Private>), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, NAME)?;
    let name = name.build();
    let mut made = X509::builder()?;
    made.set_version(2)?;
    made.set_subject_name(&name)?;
    made.set_issuer_name(&name)?;
    made.set_pubkey(&key)?;
    made.set_not_before(Asn1Time::from_unix(0)?.as_ref())?;
    made.set_not_after(Asn1Time::from_unix(UNTIL)?.as_ref())?;
    let mut san = SubjectAlternativeName::new();
    for name in names {
        san.dns(name);
    }
    let san = san.build(&made.x509v3_context(None, None))?;
    made.append_extension(san)?;
    made.sign(&key, MessageDigest::sha256())?;
    Ok((made.build(), key))
}
