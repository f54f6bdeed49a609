//! Reads certificate revocation lists, and the authorities that signed them.
//!
//! In: `client_crl` of a listener, `crl_file` of a node's TLS. Out: lists that are signed by the authorities
//! beside them. Source: RFC 5280 §5.

use std::path::Path;

use openssl::error::ErrorStack;
use openssl::x509::{X509, X509Crl};

use super::TlsError;
use super::chain;
use super::files::{self, malformed};

/// Largest file of revocation lists, in bytes: public authorities list some hundred thousand certificates.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
const BEGIN: &[u8] = b"-----BEGIN X509 CRL-----";
const END: &[u8] = b"-----END X509 CRL-----";

/// Revocation lists of one file.
#[derive(Default)]
pub struct Crls(Vec<X509Crl>);

impl Crls {
    /// Reads the revocation lists at `path`: one or several in PEM, or one in DER. Each must be signed by one
    /// of `authorities`, as far as its issuer is among them, and at least one issuer must be.
    ///
    /// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`].
    pub fn open(path: &Path, authorities: &[X509]) -> Result<Crls, TlsError> {
        let bytes = files::read_at_most(path, MAX_FILE_BYTES)?;
        let expected = "expected revocation lists (PEM or DER)";
        let lists = parsed(&bytes).map_err(|e| malformed(path, expected, &e))?;
        let fault = |why: &str| TlsError::Malformed {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        if lists.is_empty() {
            return Err(fault("expected revocation lists (PEM or DER), found none"));
        }
        let mut known = false;
        for list in &lists {
            let name = list.issuer_name().to_der().ok();
            let mut issuers = authorities.iter();
            let mut issuers = issuers
                .by_ref()
                .filter(|a| a.subject_name().to_der().ok() == name)
                .peekable();
            let named = issuers.peek().is_some();
            let by = |a: &X509| {
                a.public_key()
                    .is_ok_and(|key| list.verify(&key).unwrap_or(false))
            };
            if named && !issuers.any(by) {
                return Err(fault("a revocation list is not signed by its authority"));
            }
            known |= named;
        }
        if !known {
            return Err(fault("no revocation list is of an authority beside it"));
        }
        Ok(Crls(lists))
    }

    /// Iterates over the lists.
    pub fn iter(&self) -> impl Iterator<Item = &X509Crl> {
        self.0.iter()
    }

    /// Returns the lists in DER.
    pub fn ders(&self) -> Result<Vec<Vec<u8>>, ErrorStack> {
        self.0.iter().map(|list| list.to_der()).collect()
    }

    /// Returns when the first of the lists is over, in seconds since 1970; `None`: no list says it.
    pub fn next_update(&self) -> Option<i64> {
        let next = self.0.iter().filter_map(|list| list.next_update());
        next.map(chain::unix).min()
    }
}

/// Reads the authorities in the PEM file at `path`.
///
/// Errors: as `files::chain_of`; the file also has a revocation list, which nobody would look at.
pub fn authorities_of(path: &Path) -> Result<Vec<X509>, TlsError> {
    let bytes = files::read(path)?;
    if memchr::memmem::find(&bytes, BEGIN).is_some() {
        return Err(TlsError::Malformed {
            path: path.to_owned(),
            why: "has a revocation list, which is not looked at here; expected it in a file of its own \
                  (`client_crl` of a listener, `crl_file` of a node)"
                .into(),
        });
    }
    files::chain_of(path)
}

fn parsed(bytes: &[u8]) -> Result<Vec<X509Crl>, ErrorStack> {
    let mut starts = memchr::memmem::find_iter(bytes, BEGIN).peekable();
    if starts.peek().is_none() && bytes.first() == Some(&0x30) {
        return Ok(vec![X509Crl::from_der(bytes)?]);
    }
    let block = |at: usize| {
        let from = bytes.get(at..).unwrap_or_default();
        let end = memchr::memmem::find(from, END).map_or(from.len(), |end| end + END.len());
        X509Crl::from_pem(from.get(..end).unwrap_or_default())
    };
    starts.map(block).collect()
}
