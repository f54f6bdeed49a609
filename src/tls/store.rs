//! Loads and checks all certificates, so that a fault shows at load and not at a client.
//!
//! In: the `certificates:` of a configuration. Out: [`Loaded`] certificates by name. The key of each
//! fits its leaf, and its chain is in order and valid now. Source: RFC 6125 §6.4 (only dNSName counts).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::{X509, X509Ref};

use super::TlsError;
use super::files::{self, Material, malformed, signed};
use super::ocsp::Staple;
use crate::clock;
use crate::config::{Certificate, Config};

/// A checked chain with its key.
pub struct Loaded {
    /// The server's own certificate.
    pub leaf: X509,
    /// The issuers, each after the certificate it signed; the root may be absent.
    pub issuers: Vec<X509>,
    /// The leaf's private key.
    pub key: PKey<Private>,
    /// Names the leaf covers, lower case; a wildcard begins with `*.`. May be empty: such a
    /// certificate serves only as a default.
    pub names: Vec<String>,
    /// Whether the chain leads to a root: its last certificate is a root, or an authority of this
    /// system signed it. Otherwise clients need the missing issuer from elsewhere.
    pub complete: bool,
    /// The OCSP response stapled to handshakes.
    pub staple: Arc<Staple>,
}

impl Loaded {
    /// Loads `certificate` and checks that it is valid now; relative paths are below `dir`.
    ///
    /// Errors: the first [`TlsError`] found.
    pub fn open(certificate: &Certificate, dir: &Path) -> Result<Loaded, TlsError> {
        let shown = certificate.keystore.as_ref().or(certificate.chain.as_ref());
        let path = dir.join(shown.ok_or(TlsError::Incomplete)?);
        let Material { chain, key } = files::material(certificate, dir)?;
        let mut chain = chain.into_iter();
        let leaf = chain.next().ok_or(TlsError::Incomplete)?;
        let issuers: Vec<X509> = chain.collect();
        check_order(&path, &leaf, &issuers)?;
        check_time(&path, &leaf, &issuers)?;
        if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
            let key = certificate.key.as_ref().or(certificate.keystore.as_ref());
            return Err(TlsError::KeyMismatch {
                chain: path,
                key: dir.join(key.unwrap_or(&PathBuf::new())),
            });
        }
        let staple = Staple::open(certificate, dir, (&leaf, &issuers), unix_now())?;
        Ok(Loaded {
            complete: is_complete(issuers.last().unwrap_or(&leaf)),
            names: names(&leaf),
            leaf,
            issuers,
            key,
            staple: Arc::new(staple),
        })
    }

    /// Returns when the leaf expires, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        unix(self.leaf.not_after())
    }

    /// Returns the whole days from `now` (seconds since 1970) until the leaf expires; negative after
    /// that.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after() - now).div_euclid(86_400)
    }

    /// Returns the kind of its key. One name may have a certificate for each kind.
    pub fn kind(&self) -> &'static str {
        match self.key.id() {
            Id::RSA | Id::RSA_PSS => "rsa",
            Id::EC => "ecdsa",
            Id::ED25519 | Id::ED448 => "eddsa",
            _ => "other",
        }
    }
}

/// Certificates by name. Each is read once, even if many listeners serve it.
#[derive(Clone, Default)]
pub struct Store(BTreeMap<String, Arc<Loaded>>);

impl Store {
    /// Loads every certificate of `config`.
    ///
    /// Errors: the first [`TlsError`].
    pub fn load(config: &Config) -> Result<Store, TlsError> {
        let all = config.certificates.iter();
        all.map(|(name, files)| {
            let loaded = Loaded::open(files, &config.dir)?;
            warn(name, files, &loaded);
            Ok((name.clone(), Arc::new(loaded)))
        })
        .collect::<Result<_, TlsError>>()
        .map(Store)
    }

    /// Loads every certificate again. Returns the new store, and the errors by certificate; a
    /// certificate with an error stays as it was.
    pub fn refreshed(&self, config: &Config) -> (Store, Vec<(String, TlsError)>) {
        let mut faults = Vec::new();
        let mut fresh = BTreeMap::new();
        for (name, files) in &config.certificates {
            match (Loaded::open(files, &config.dir), self.0.get(name)) {
                (Ok(loaded), old) => {
                    if let Some(old) = old {
                        loaded.staple.inherit(&old.staple);
                    }
                    warn(name, files, &loaded);
                    fresh.insert(name.clone(), Arc::new(loaded));
                }
                (Err(fault), old) => {
                    fresh.extend(old.map(|old| (name.clone(), old.clone())));
                    faults.push((name.clone(), fault));
                }
            }
        }
        (Store(fresh), faults)
    }

    /// Takes over the OCSP responses of certificates that have not changed.
    pub fn inherit(&self, old: &Store) {
        for (name, loaded) in &self.0 {
            if let Some(old) = old.get(name) {
                loaded.staple.inherit(&old.staple);
            }
        }
    }

    /// Returns the certificate called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Loaded>> {
        self.0.get(name)
    }

    /// Iterates over all certificates, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Loaded>)> {
        self.0.iter()
    }
}

/// Warns, at each load, of a certificate that expires soon or whose chain does not lead to a root.
fn warn(name: &str, files: &Certificate, loaded: &Loaded) {
    let left = loaded.days_left(unix_now());
    if left < i64::from(files.warn_days) {
        log::warn!(
            "certificate {name} expires in {left} days, on {}; renew it",
            loaded.leaf.not_after()
        );
    }
    if !loaded.complete {
        log::warn!(
            "certificate {name}: its chain does not lead to a root or an authority of this system, and \
             clients without the missing issuer refuse it; add the issuer to the chain"
        );
    }
}

/// Returns the current time, in seconds since 1970.
pub fn unix_now() -> i64 {
    let now = clock::wall().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs() as i64)
}

/// Converts an ASN.1 time to seconds since 1970.
fn unix(time: &Asn1TimeRef) -> i64 {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    since.map_or(0, |d| i64::from(d.days) * 86_400 + i64::from(d.secs))
}

/// Returns the dNSName entries of the leaf's subjectAltName, lower case. The common name does not
/// count, because clients have ignored it for years.
fn names(leaf: &X509Ref) -> Vec<String> {
    let entries = leaf.subject_alt_names();
    entries
        .iter()
        .flatten()
        .filter_map(|entry| entry.dnsname())
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Returns the names that the first certificate in the PEM file at `path` covers.
///
/// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`].
pub fn names_of(path: &Path) -> Result<Vec<String>, TlsError> {
    let chain = files::chain_of(path)?;
    Ok(chain.first().map_or_else(Vec::new, |leaf| names(leaf)))
}

/// Returns the names that the certificate in the PKCS#12 keystore at `path` covers.
///
/// Errors: [`TlsError`], as for a keystore in the configuration.
pub fn names_in(path: &Path, password: &str) -> Result<Vec<String>, TlsError> {
    let Material { chain, .. } = files::keystore_of(path, password)?;
    Ok(chain.first().map_or_else(Vec::new, |leaf| names(leaf)))
}

fn check_order(path: &Path, leaf: &X509Ref, issuers: &[X509]) -> Result<(), TlsError> {
    let mut subject = leaf;
    for (i, issuer) in issuers.iter().enumerate() {
        if !signed(subject, issuer) {
            return Err(TlsError::Order {
                path: path.to_owned(),
                position: i + 1,
            });
        }
        subject = issuer;
    }
    Ok(())
}

fn is_complete(last: &X509) -> bool {
    static ROOTS: OnceLock<Vec<X509>> = OnceLock::new();
    let read = || {
        let file = openssl_probe::probe().cert_file;
        let roots = file.and_then(|file| files::chain_of(&file).ok());
        roots.unwrap_or_default()
    };
    signed(last, last)
        || ROOTS
            .get_or_init(read)
            .iter()
            .any(|root| signed(last, root))
}

fn check_time(path: &Path, leaf: &X509Ref, issuers: &[X509]) -> Result<(), TlsError> {
    let now =
        Asn1Time::days_from_now(0).map_err(|e| malformed(path, "cannot read the clock", &e))?;
    let chain = std::iter::once(leaf).chain(issuers.iter().map(AsRef::as_ref));
    for (i, certificate) in chain.enumerate() {
        let why = if certificate.not_after() < now {
            format!("expired on {}", certificate.not_after())
        } else if certificate.not_before() > now {
            format!("is not valid before {}", certificate.not_before())
        } else {
            continue;
        };
        return Err(TlsError::Time {
            path: path.to_owned(),
            position: i + 1,
            why,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Folder, Leaf};
    use super::*;

    /// Aim: `complete` is false for a chain without its issuer. Source: FAULTS D36.
    #[test]
    fn a_missing_issuer_is_seen() {
        let folder = Folder::new();
        let leaf = folder.issue("whole", &Leaf::of(&["a.example"]));
        folder.issue("bare", &Leaf::of(&["a.example"]));
        folder.write("bare.pem", &leaf.to_pem().unwrap());
        std::fs::copy(
            folder.dir.path().join("whole.key"),
            folder.dir.path().join("bare.key"),
        )
        .unwrap();
        for (word, complete) in [("whole", true), ("bare", false)] {
            let loaded = Loaded::open(&Folder::certificate(word), folder.dir.path());
            let loaded = loaded.unwrap_or_else(|e| panic!("{word}: {e}"));
            assert_eq!(loaded.complete, complete, "{word}");
        }
    }
}
