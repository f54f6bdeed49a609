//! What a certificate is told: where its chain and key are.

use std::path::PathBuf;

use serde::Deserialize;

/// A certificate with its key. The names it covers are read from it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM chain, leaf first.
    pub chain: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}
