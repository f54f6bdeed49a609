//! Reads chain and key of a certificate, wherever the configuration says that they are.
//!
//! In: a `certificates.<name>` block. Out: a chain with its key; of a keystore several. Source: FAULTS D36.

use std::path::Path;

use openssl::x509::X509Ref;

use super::aliases;
use super::chain::{self, Material};
use super::files::{chain_of, key_of, password_of};
use super::keystore::Keystore;
use super::{Certificate, TlsError};

/// Reads what `certificate` names; relative paths are below `dir`, `now` is in seconds since 1970. A keystore
/// may give several keys, each with its chain; the result is never empty.
///
/// Errors: the first [`TlsError`] found.
pub(super) fn material(
    certificate: &Certificate,
    dir: &Path,
    now: i64,
) -> Result<Vec<Material>, TlsError> {
    let password = password_of(certificate, dir)?;
    if let Some(keystore) = &certificate.keystore {
        let password = password.as_deref().unwrap_or_default();
        let store = Keystore::open(&dir.join(keystore), password)?;
        return aliases::chosen(
            &dir.join(keystore),
            store,
            certificate.alias.as_deref(),
            now,
        );
    }
    let (file, key_file) = match (&certificate.acme, &certificate.chain, &certificate.key) {
        (Some(acme), ..) => (dir.join(acme.file()), dir.join(acme.file())),
        (None, Some(chain), Some(key)) => (dir.join(chain), dir.join(key)),
        _ => return Err(TlsError::Incomplete),
    };
    let given = chain_of(&file)?;
    let key = key_of(&key_file, password.as_deref())?;
    let in_time = |c: &X509Ref| chain::out_of_time(c, now).is_none();
    let chain = chain::of_file(&file, given, &key, in_time)?;
    let chain = chain.ok_or(TlsError::KeyMismatch {
        chain: file,
        key: key_file,
    })?;
    Ok(vec![Material {
        chain,
        key,
        alias: None,
    }])
}
