//! Loads a certificate and checks it, so that a fault shows at load and not at a client.
//!
//! In: the block of a certificate. Out: a [`Loaded`] certificate. Its key fits its leaf, and its chain is in
//! order. What is over, or has not begun, is a [`Warning`]: one certificate must not stop the others.
//! Source: RFC 6125 §6.4 (only dNSName counts).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::aliases;
use super::chain::{self, Chain, Material, Warning, names, signed};
use super::files;
use super::keystore::Keystore;
use super::mark::Marks;
use super::material::material;
use super::ocsp::Staple;
use super::placeholder;
use super::reading::note;
use super::{Acme, Certificate, TlsError};
use crate::clock;

/// A checked chain with its key.
pub struct Loaded {
    /// The server's own certificate.
    pub leaf: X509,
    /// The issuers, each after the certificate it signed; the root may be absent.
    pub issuers: Vec<X509>,
    /// The leaf's private key.
    pub key: PKey<Private>,
    /// The key's name in its keystore.
    pub alias: Option<String>,
    /// Names the leaf covers, lower case; a wildcard begins with `*.`. May be empty: such a
    /// certificate serves only as a default.
    pub names: Vec<String>,
    /// Whether the chain leads to a root: its last certificate is a root, or an authority of this
    /// system signed it. Otherwise clients need the missing issuer from elsewhere.
    pub complete: bool,
    /// The OCSP response stapled to handshakes.
    pub staple: Arc<Staple>,
    /// Further keys of the same keystore, served side by side with this one.
    pub beside: Vec<Arc<Loaded>>,
    /// Whether it only stands in for one that no authority has issued yet.
    pub is_placeholder: bool,
    /// The file of the chain, for messages.
    path: PathBuf,
    /// What was put right in the chain.
    warnings: Vec<Warning>,
    /// Its files; `None` if it must be read at each load.
    pub(super) marks: Option<Marks>,
}

impl Loaded {
    /// Loads `certificate`; relative paths are below `dir`. A certificate that is not valid now is loaded too,
    /// with a warning: see [`Loaded::check_time`].
    ///
    /// Errors: the first [`TlsError`] found.
    pub fn open(certificate: &Certificate, dir: &Path) -> Result<Loaded, TlsError> {
        if let Some(acme) = &certificate.acme
            && is_absent(&dir.join(acme.file()))
        {
            return Self::stand_in(acme, dir);
        }
        let got = certificate.acme.as_ref().map(Acme::file);
        let shown = certificate.keystore.clone().or(certificate.chain.clone());
        let path = dir.join(shown.or(got).ok_or(TlsError::Incomplete)?);
        let marks = Marks::of(certificate, dir, unix_now());
        let all = material(certificate, dir, unix_now())?.into_iter();
        let mut all = all.map(|material| Loaded::of(material, certificate, dir, &path));
        let mut first = all.next().ok_or(TlsError::Incomplete)??;
        let beside: Result<Vec<_>, TlsError> = all.map(|one| one.map(Arc::new)).collect();
        first.beside = beside?;
        first.marks = marks;
        Ok(first)
    }

    /// Makes the placeholder of a certificate that is not there yet.
    fn stand_in(acme: &Acme, dir: &Path) -> Result<Loaded, TlsError> {
        let path = dir.join(acme.file());
        let made = placeholder::make(&acme.names()).map_err(|e| TlsError::Malformed {
            path: path.clone(),
            why: format!("OpenSSL makes no placeholder: {e}"),
        });
        let (leaf, key) = made?;
        let staple = Staple::open(&Certificate::default(), dir, (&leaf, &[]), unix_now())?;
        Ok(Loaded {
            issuers: Vec::new(),
            key,
            alias: None,
            names: names(&leaf),
            leaf,
            complete: false,
            staple: Arc::new(staple),
            beside: Vec::new(),
            is_placeholder: true,
            path,
            warnings: Vec::new(),
            marks: None,
        })
    }

    fn of(
        material: Material,
        certificate: &Certificate,
        dir: &Path,
        path: &Path,
    ) -> Result<Loaded, TlsError> {
        let Material { chain, key, alias } = material;
        let Chain {
            leaf,
            issuers,
            warnings,
        } = chain;
        let staple = Staple::open(certificate, dir, (&leaf, &issuers), unix_now())?;
        Ok(Loaded {
            complete: is_complete(issuers.last().unwrap_or(&leaf)),
            names: names(&leaf),
            leaf,
            issuers,
            key,
            alias,
            staple: Arc::new(staple),
            beside: Vec::new(),
            is_placeholder: false,
            path: path.to_owned(),
            warnings,
            marks: None,
        })
    }

    /// Iterates over this certificate and those beside it.
    pub fn each(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Loaded>> {
        std::iter::once(self).chain(&self.beside)
    }

    /// Whether the leaf, or one beside it, is valid at `now`, in seconds since 1970.
    ///
    /// Errors: [`TlsError::Time`].
    pub fn check_time(&self, now: i64) -> Result<(), TlsError> {
        if self.beside.iter().any(|one| one.is_in_time(now)) {
            return Ok(());
        }
        match chain::out_of_time(&self.leaf, now) {
            None => Ok(()),
            Some(_) if self.is_placeholder => Err(TlsError::NotIssued {
                path: self.path.clone(),
            }),
            Some(why) => Err(TlsError::Time {
                path: self.path.clone(),
                position: 1,
                why,
            }),
        }
    }

    /// Whether the leaf is valid at `now`, in seconds since 1970.
    pub fn is_in_time(&self, now: i64) -> bool {
        chain::out_of_time(&self.leaf, now).is_none()
    }

    /// Whether it and its issuers are valid at `now`, and nothing had to be put right in its chain.
    pub(super) fn is_in_time_whole(&self, now: i64) -> bool {
        let in_time = |one: &X509| chain::out_of_time(one, now).is_none();
        self.warnings.is_empty() && in_time(&self.leaf) && self.issuers.iter().all(in_time)
    }

    /// Returns what an operator should mend, at `now`.
    pub fn warnings(&self, now: i64) -> Vec<Warning> {
        if self.is_placeholder {
            return vec![Warning::Placeholder];
        }
        let mut all = self.warnings.clone();
        if let Some(why) = chain::out_of_time(&self.leaf, now) {
            all.push(match self.not_after() < now {
                true => Warning::Expired(why),
                false => Warning::NotYetValid(why),
            });
        }
        for (i, issuer) in self.issuers.iter().enumerate() {
            let why = chain::out_of_time(issuer, now);
            all.extend(why.map(|why| Warning::Issuer(i + 2, why)));
        }
        if !self.complete {
            all.push(Warning::Incomplete);
        }
        if self.staple.is_over(now) {
            all.push(Warning::OcspExpired);
        }
        all
    }

    /// Returns when the leaf expires, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        chain::unix(self.leaf.not_after())
    }

    /// Returns the whole days from `now` (seconds since 1970) until the leaf expires; negative after
    /// that.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after() - now).div_euclid(86_400)
    }

    /// Whether less than a quarter of the leaf's life is left at `now`, in seconds since 1970.
    pub fn is_late(&self, now: i64) -> bool {
        let life = self.not_after() - chain::unix(self.leaf.not_before());
        self.not_after() - now < life / 4
    }

    /// Returns the kind of its key. One name may have a certificate for each kind.
    pub fn kind(&self) -> &'static str {
        chain::kind(&self.key)
    }
}

/// Returns the current time, in seconds since 1970.
pub fn unix_now() -> i64 {
    let now = clock::wall().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs() as i64)
}

/// Returns the names that the first certificate in the PEM file at `path` covers.
///
/// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`].
pub fn names_of(path: &Path) -> Result<Vec<String>, TlsError> {
    let chain = files::chain_of(path)?;
    Ok(chain.first().map_or_else(Vec::new, |leaf| names(leaf)))
}

/// Returns the names that the certificates in the PKCS#12 keystore at `path` cover.
///
/// Errors: [`TlsError`], as for a keystore in the configuration.
pub fn names_in(path: &Path, password: &str) -> Result<Vec<String>, TlsError> {
    let store = Keystore::open(path, password)?;
    let all = aliases::chosen(path, store, None, unix_now())?;
    Ok(all.iter().flat_map(|one| names(&one.chain.leaf)).collect())
}

/// Whether there is no file at `path`. A file that cannot be looked at is there, and is reported when it is read.
fn is_absent(path: &Path) -> bool {
    let _noted = note(path);
    matches!(path.try_exists(), Ok(false))
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
