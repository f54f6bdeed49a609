//! The files that prove who somebody is: certificates with their keys, OCSP responses, revocation lists,
//! and the keys of session tickets.
//!
//! In: the block of a certificate, and paths. Out: checked material, or a [`TlsError`] that says what to
//! do about it. Below `config`, whose check reads the files, and `tls`, which serves them.

mod acme;
mod aliases;
mod certificate;
mod chain;
mod crl;
mod error;
mod external;
mod files;
mod issued;
mod keystore;
mod loaded;
mod mark;
mod material;
pub mod ocsp;
mod placeholder;
mod reading;
pub mod ticket_keys;
mod unchanged;

pub use acme::{Acme, Challenge, ExternalAccount};
pub use certificate::{Certificate, Ocsp};
pub use chain::Warning;
pub use crl::{Crls, authorities_of};
pub use error::TlsError;
pub use external::external_key;
pub use files::{key_of, password_in, password_of};
pub use issued::{Issued, whole};
pub use loaded::{Loaded, names_in, names_of, unix_now};
pub use mark::Mark;
pub use reading::Reading;
pub use unchanged::{open, unchanged};

#[cfg(fuzzing)]
pub mod fuzz;
