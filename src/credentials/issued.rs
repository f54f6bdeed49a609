//! The file of a certificate that an authority has issued by ACME: what is in it, and which dates decide the renewal.
//!
//! In: key and chain, or the path of the file. Out: the file's content, or its dates, names and authority.

use std::path::Path;

use openssl::x509::X509;

use super::reading::note;
use super::{chain, files};

/// Begins the line that names the authority; readers of PEM skip it.
const AUTHORITY: &str = "# authority: ";

/// The facts of a certificate that decide its renewal. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Begin of its validity.
    pub from: i64,
    /// End of its validity.
    pub until: i64,
    /// Names that it covers.
    pub names: Vec<String>,
    /// URL of the directory of the authority that issued it.
    pub authority: String,
}

impl Issued {
    /// Reads the file at `path`; `None`: there is none, or it has no certificate.
    ///
    /// Errors: those of the system, with the path. Nobody knows then whether it is good.
    pub fn read(path: &Path) -> Result<Option<Issued>, String> {
        let _noted = note(path);
        match files::read(path) {
            Ok(pem) => Ok(Self::of(&pem)),
            Err(_) if matches!(path.try_exists(), Ok(false)) => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Reads what [`whole`] has made.
    pub fn of(pem: &[u8]) -> Option<Issued> {
        let leaf = X509::stack_from_pem(pem).ok()?.into_iter().next()?;
        let text = String::from_utf8_lossy(pem);
        let authority = text.lines().find_map(|line| line.strip_prefix(AUTHORITY));
        Some(Issued {
            from: chain::unix(leaf.not_before()),
            until: chain::unix(leaf.not_after()),
            names: chain::names(&leaf),
            authority: authority.unwrap_or_default().to_owned(),
        })
    }
}

/// Returns the content of the file: the authority's name, the private key and the chain, in PEM.
pub fn whole(authority: &str, key: &str, chain: &str) -> String {
    format!("{AUTHORITY}{authority}\n{key}\n{chain}")
}
