//! TLS towards clients: which certificate a handshake gets, and under which rules it is made.
//!
//! In: a listener's `tls:` and the files it names. Out: an acceptor per VIP, ready for a handshake.
//! Source: Lightstreamer clustering §2.1.1 (a certificate per host name), RFC 6066 §3, RFC 8446.

use std::path::PathBuf;

mod context;
mod files;
pub mod ocsp;
mod seen;
mod select;
mod server_name;
mod store;
pub mod tickets;
mod words;

pub use files::{chain_of, key_of, password_of};
pub use seen::Handshake;
pub use select::{Choice, TlsFront, choice};
pub use store::{Loaded, Store, names_in, names_of, unix_now};

/// What is wrong with a certificate, or with the set of them a listener is given.
#[derive(Debug)]
pub enum Fault {
    /// A file that cannot be read, or is larger than any certificate.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// A file that is not what it should be.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected, and what OpenSSL said.
        why: String,
    },
    /// Neither `chain` and `key` nor a `keystore`.
    Incomplete,
    /// A private key that needs a password.
    Encrypted {
        /// The key's file.
        path: PathBuf,
    },
    /// A password that does not open the key or keystore.
    WrongPassword {
        /// The file that stays shut.
        path: PathBuf,
    },
    /// A password that is not there.
    NoPassword {
        /// Where it should be.
        from: String,
    },
    /// A keystore in Java's own old format.
    JavaKeystore {
        /// The keystore.
        path: PathBuf,
    },
    /// A keystore sealed by a cipher that is no longer safe.
    OldCipher {
        /// The keystore.
        path: PathBuf,
    },
    /// An OCSP response that cannot be had or is not good.
    Ocsp {
        /// What is wrong.
        why: String,
    },
    /// A key that is not the leaf's.
    KeyMismatch {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A chain in which a certificate is not followed by its issuer.
    Order {
        /// The chain's file.
        path: PathBuf,
        /// Position of the certificate whose issuer does not follow; the leaf is 1.
        position: usize,
    },
    /// A certificate outside its time.
    Time {
        /// The chain's file.
        path: PathBuf,
        /// Position in the chain; the leaf is 1.
        position: usize,
        /// `expired on …` or `not valid before …`.
        why: String,
    },
    /// A listener names a certificate the file does not define, or none at all.
    Unknown {
        /// The listener.
        listener: String,
        /// The name that is missing; empty where the list is.
        certificate: String,
    },
    /// OpenSSL refuses the certificate or a rule (weak key, unknown algorithm).
    Refused {
        /// The certificate's name.
        certificate: String,
        /// OpenSSL's words.
        why: String,
    },
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
