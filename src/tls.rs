//! TLS towards clients: which certificate a handshake gets, and under which rules it is made.
//!
//! In: a listener's `tls:` and the files it names. Out: an acceptor per VIP, ready for a handshake.
//! Source: Lightstreamer clustering §2.1.1 (a certificate per host name), RFC 6066 §3, RFC 8446.

use std::fmt;
use std::path::PathBuf;

mod context;
mod select;
mod server_name;
mod store;

pub use select::TlsFront;
pub use store::{Loaded, key_of, names_of};

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
    /// A private key that needs a passphrase.
    Encrypted {
        /// The key's file.
        path: PathBuf,
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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreadable { path, why } => {
                write!(f, "{}: cannot be read: {why}", path.display())
            }
            Fault::Malformed { path, why } => write!(f, "{}: {why}", path.display()),
            Fault::Encrypted { path } => write!(
                f,
                "{}: the private key is encrypted; expected one without a passphrase",
                path.display()
            ),
            Fault::KeyMismatch { chain, key } => write!(
                f,
                "{}: is not the private key of the first certificate in {}",
                key.display(),
                chain.display()
            ),
            Fault::Order { path, position } => write!(
                f,
                "{}: certificate {position} is not followed by its issuer; expected the leaf first, \
                 then each issuer",
                path.display()
            ),
            Fault::Time {
                path,
                position,
                why,
            } => write!(f, "{}: certificate {position} {why}", path.display()),
            Fault::Unknown {
                listener,
                certificate,
            } if certificate.is_empty() => {
                write!(
                    f,
                    "listener `{listener}`: tls needs at least one certificate"
                )
            }
            Fault::Unknown {
                listener,
                certificate,
            } => write!(
                f,
                "listener `{listener}`: unknown certificate `{certificate}`"
            ),
            Fault::Refused { certificate, why } => {
                write!(f, "certificate `{certificate}`: OpenSSL refuses it: {why}")
            }
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
