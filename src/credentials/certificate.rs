//! The block of a certificate: where its chain, its key and its OCSP response come from.
//!
//! In: a block of `certificates:`. Out: paths and words. The files are read elsewhere.

use std::path::PathBuf;

use pushgate_plugins::bounds::Whole;
use serde::Deserialize;

use super::Acme;

/// Days before a certificate's end at which the log begins to warn: a third of the usual 90, when the
/// issuers' own tools renew.
const WARN_DAYS: u32 = 30;
/// Days before a certificate's end: at most a hundred years.
type Days = Whole<0, 36_500>;

/// A certificate with its key: `chain` and `key`, a `keystore`, or `acme`. The names it covers are read
/// from it.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM chain, leaf first.
    #[serde(default)]
    pub chain: Option<PathBuf>,
    /// PEM private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// PKCS#12 keystore with chain and key.
    #[serde(default)]
    pub keystore: Option<PathBuf>,
    /// Alias of the key in `keystore`; absent: every key that can be served side by side.
    #[serde(default)]
    pub alias: Option<String>,
    /// File whose first line is the password of `key` or `keystore`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password instead.
    #[serde(default)]
    pub password_env: Option<String>,
    /// The edge gets it from an authority, and renews it.
    #[serde(default)]
    pub acme: Option<Acme>,
    /// Where the stapled OCSP response comes from.
    #[serde(default)]
    pub ocsp: Ocsp,
    /// Days before its end from which each load logs a warning.
    #[serde(default = "warn_days", deserialize_with = "Days::read")]
    pub warn_days: u32,
}

impl Certificate {
    /// Returns its files.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let ocsp = match &self.ocsp {
            Ocsp::File(file) => Some(file),
            _ => None,
        };
        let own = [&self.chain, &self.key, &self.keystore, &self.password_file];
        let got = self.acme.iter().map(Acme::file);
        own.into_iter().flatten().chain(ocsp).cloned().chain(got)
    }
}

/// Where a certificate's OCSP response comes from.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Ocsp {
    /// Nothing is stapled.
    #[default]
    Off,
    /// Fetched from the responder that the certificate names, and again before it expires.
    Responder,
    /// Read from a file (DER) that another program keeps fresh.
    File(PathBuf),
}

fn warn_days() -> u32 {
    WARN_DAYS
}
