//! Puts the certificates of a file into a chain, and says what is unusual about them.
//!
//! In: certificates as a file lists them, and the private key. Out: the leaf with its issuers in order, and
//! [`Warning`]s. Whatever clients can do without is a warning, never a fault.
//! Source: RFC 5246 §7.4.2 (each certificate certifies the one before it); RFC 8446 §4.4.2; FAULTS D36.

use std::path::Path;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::{Id, PKey, PKeyRef, Private};
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::TlsError;

/// Something about a certificate that an operator should mend, although it is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The leaf has expired.
    #[error("it {0}; clients refuse it, renew it")]
    Expired(String),
    /// A placeholder stands in for it.
    #[error("no authority has issued it yet, and a placeholder that clients refuse stands in")]
    Placeholder,
    /// The leaf's time has not begun.
    #[error("it {0}; clients refuse it until then")]
    NotYetValid(String),
    /// An issuer in the chain has expired, or its time has not begun.
    #[error("certificate {0} of its chain {1}; remove or renew it")]
    Issuer(usize, String),
    /// The chain was not in order.
    #[error("its chain is not in order; it is served in order, leaf first")]
    Order,
    /// A certificate is in the chain twice.
    #[error("a certificate is twice in its chain; it is served once")]
    Duplicate,
    /// A certificate of the file is not part of the chain: another cross-sign, or an older leaf.
    #[error("certificate `{0}` of its file is not part of the chain; it is not served")]
    LeftOut(String),
    /// The chain does not lead to a root.
    #[error(
        "its chain does not lead to a root or an authority of this system, and clients without the \
         missing issuer refuse it; add the issuer to the chain"
    )]
    Incomplete,
    /// The OCSP response in the file is not valid now.
    #[error(
        "the OCSP response in its file has expired or is not valid yet; none is stapled, fetch a new one"
    )]
    OcspExpired,
    /// A key of the keystore is not served.
    #[error("key `{0}` of its keystore is not served: {1}")]
    KeyLeftOut(String, String),
}

impl Warning {
    /// All words of [`Warning::as_str`], for the documents.
    pub const WORDS: [&str; 10] = [
        "expired",
        "placeholder",
        "not_yet_valid",
        "issuer_expired",
        "order",
        "duplicate",
        "left_out",
        "incomplete",
        "ocsp_expired",
        "key_left_out",
    ];

    /// Returns the word of a metric and of the admin endpoint.
    pub fn as_str(&self) -> &'static str {
        let [
            expired,
            placeholder,
            early,
            issuer,
            order,
            duplicate,
            left_out,
            incomplete,
            ocsp,
            key,
        ] = Self::WORDS;
        match self {
            Warning::Expired(_) => expired,
            Warning::Placeholder => placeholder,
            Warning::NotYetValid(_) => early,
            Warning::Issuer(..) => issuer,
            Warning::Order => order,
            Warning::Duplicate => duplicate,
            Warning::LeftOut(_) => left_out,
            Warning::Incomplete => incomplete,
            Warning::OcspExpired => ocsp,
            Warning::KeyLeftOut(..) => key,
        }
    }
}

/// A chain as clients get it.
pub(super) struct Chain {
    pub leaf: X509,
    pub issuers: Vec<X509>,
    pub warnings: Vec<Warning>,
}

/// A chain with the private key of its leaf.
pub(super) struct Material {
    pub chain: Chain,
    pub key: PKey<Private>,
    /// The key's name in its keystore.
    pub alias: Option<String>,
}

/// Makes the chain of `key` from the certificates that the PEM file at `path` lists. A file that is in order
/// stays as it is. `in_time` says which certificates are valid now: of two cross-signs the chain gets that one.
///
/// Errors: no certificate belongs to the key (`None`); [`TlsError::Order`]: a certificate belongs to no chain
/// of the leaf.
pub(super) fn of_file(
    path: &Path,
    given: Vec<X509>,
    key: &PKeyRef<Private>,
    in_time: impl Fn(&X509Ref) -> bool,
) -> Result<Option<Chain>, TlsError> {
    let mut warnings = Vec::new();
    let count = given.len();
    let mut others = without_duplicates(given);
    if others.len() < count {
        warnings.push(Warning::Duplicate);
    }
    let belongs = |c: &X509| c.public_key().is_ok_and(|public| public.public_eq(key));
    let at = match others.iter().position(|c| belongs(c) && in_time(c)) {
        Some(at) => at,
        None => match others.iter().position(belongs) {
            Some(at) => at,
            None => return Ok(None),
        },
    };
    let leaf = others.remove(at);
    let (issuers, rest) = match follows(&leaf, &others) {
        true => (others, Vec::new()),
        false => {
            let listed = others.clone();
            let (issuers, rest) = in_order(&leaf, others, &in_time);
            let place = |c: &X509| listed.iter().position(|l| l == c);
            if at == 0 && !issuers.is_sorted_by_key(place) {
                warnings.push(Warning::Order);
            }
            (issuers, rest)
        }
    };
    if at > 0 {
        warnings.push(Warning::Order);
    }
    for one in rest {
        let position = issuers.len() + 1;
        let path = path.to_owned();
        if !std::iter::once(&leaf).chain(&issuers).any(|c| kin(c, &one)) {
            return Err(TlsError::Order { path, position });
        }
        warnings.push(Warning::LeftOut(common_name(&one)));
    }
    Ok(Some(Chain {
        leaf,
        issuers,
        warnings,
    }))
}

/// Makes the chain of `leaf` from the certificates of a keystore, which have no order. It ends at a root.
/// Certificates of other chains are no fault: a keystore may hold whole sets of authorities.
pub(super) fn of_keystore(
    leaf: X509,
    others: Vec<X509>,
    in_time: impl Fn(&X509Ref) -> bool,
) -> Chain {
    let (mut issuers, _) = in_order(&leaf, without_duplicates(others), &in_time);
    let root = issuers.iter().position(|issuer| signed(issuer, issuer));
    issuers.truncate(root.map_or(issuers.len(), |at| at + 1));
    Chain {
        leaf,
        issuers,
        warnings: Vec::new(),
    }
}

/// Whether `issuer` signed `subject`. Checks the signature as well as the names, because a renewed CA
/// keeps its name and changes its key.
pub(super) fn signed(subject: &X509Ref, issuer: &X509Ref) -> bool {
    let by_key = || issuer.public_key().and_then(|key| subject.verify(&key));
    issuer.issued(subject) == X509VerifyResult::OK && by_key().unwrap_or(false)
}

/// Returns why a certificate is not valid at `now`, in seconds since 1970; `None`: it is valid.
pub(super) fn out_of_time(of: &X509Ref, now: i64) -> Option<String> {
    if unix(of.not_after()) < now {
        Some(format!("expired on {}", of.not_after()))
    } else if unix(of.not_before()) > now {
        Some(format!("is not valid before {}", of.not_before()))
    } else {
        None
    }
}

/// Converts an ASN.1 time to seconds since 1970.
pub(super) fn unix(time: &Asn1TimeRef) -> i64 {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    since.map_or(0, |d| i64::from(d.days) * 86_400 + i64::from(d.secs))
}

/// Returns the dNSName entries of the leaf's subjectAltName, lower case. The common name does not
/// count, because clients have ignored it for years.
pub(super) fn names(leaf: &X509Ref) -> Vec<String> {
    let entries = leaf.subject_alt_names();
    entries
        .iter()
        .flatten()
        .filter_map(|entry| entry.dnsname())
        .map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
        .collect()
}

/// Returns the kind of a key, as in [`Loaded::kind`](super::Loaded::kind).
pub(super) fn kind(key: &PKeyRef<Private>) -> &'static str {
    match key.id() {
        Id::RSA | Id::RSA_PSS => "rsa",
        Id::EC => "ecdsa",
        Id::ED25519 | Id::ED448 => "eddsa",
        _ => "other",
    }
}

/// Returns the common name of a certificate, else its whole subject.
pub(super) fn common_name(of: &X509Ref) -> String {
    let mut entries = of
        .subject_name()
        .entries_by_nid(openssl::nid::Nid::COMMONNAME);
    let name = entries.next().and_then(|e| e.data().to_string().ok());
    name.unwrap_or_else(|| format!("{:?}", of.subject_name()))
}

fn without_duplicates(given: Vec<X509>) -> Vec<X509> {
    let mut kept: Vec<X509> = Vec::with_capacity(given.len());
    for one in given {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

/// Whether each certificate signed the one before it.
fn follows(leaf: &X509Ref, issuers: &[X509]) -> bool {
    let subjects = std::iter::once(leaf).chain(issuers.iter().map(AsRef::as_ref));
    subjects.zip(issuers).all(|(s, issuer)| signed(s, issuer))
}

/// Sorts `others` into the issuers of `leaf`, and those that are none. Where several signed one certificate,
/// one that is valid now is taken.
fn in_order(
    leaf: &X509Ref,
    mut others: Vec<X509>,
    in_time: &impl Fn(&X509Ref) -> bool,
) -> (Vec<X509>, Vec<X509>) {
    let mut issuers: Vec<X509> = Vec::new();
    loop {
        let last = issuers.last().map_or(leaf, AsRef::as_ref);
        let good = others.iter().position(|o| signed(last, o) && in_time(o));
        let next = good.or_else(|| others.iter().position(|other| signed(last, other)));
        match next {
            Some(at) => issuers.push(others.remove(at)),
            None => return (issuers, others),
        }
    }
}

/// Whether two certificates name one subject with one key: cross-signs of an authority, or a leaf and its
/// predecessor.
fn kin(one: &X509Ref, other: &X509Ref) -> bool {
    let same_key = match (one.public_key(), other.public_key()) {
        (Ok(a), Ok(b)) => a.public_eq(&b),
        _ => false,
    };
    let name = |c: &X509Ref| c.subject_name().to_der().ok();
    same_key && name(one) == name(other)
}
