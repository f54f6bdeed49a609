//! Says what is wrong with a certificate, and what to do about it.
//!
//! In: what was found. Out: one sentence; never a secret.

use std::path::PathBuf;

/// What is wrong with a certificate, or with the set of them a listener is given.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or is larger than any certificate.
    #[error("{}: cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// A file that is not what it should be.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected, and what OpenSSL said.
        why: String,
    },
    /// Neither `chain` and `key` nor a `keystore`.
    #[error("expected `chain` and `key`, or `keystore`")]
    Incomplete,
    /// A private key that needs a password.
    #[error(
        "{}: the private key is encrypted; expected `password_file` or `password_env`",
        path.display()
    )]
    Encrypted {
        /// The key's file.
        path: PathBuf,
    },
    /// A password that does not open the key or keystore.
    #[error("{}: the password does not open it", path.display())]
    WrongPassword {
        /// The file that stays shut.
        path: PathBuf,
    },
    /// A password that is not there.
    #[error("{from}")]
    NoPassword {
        /// Where it should be.
        from: String,
    },
    /// A keystore in Java's own old format.
    #[error(
        "{0}: is a keystore in Java's old format; convert it: keytool -importkeystore \
         -srckeystore {0} -destkeystore {0}.p12 -deststoretype PKCS12",
        path.display()
    )]
    JavaKeystore {
        /// The keystore.
        path: PathBuf,
    },
    /// A keystore sealed by a cipher that is no longer safe.
    #[error(
        "{0}: is sealed by a cipher that is no longer safe (RC2, as Java 8 wrote); write it anew: \
         keytool -importkeystore -srckeystore {0} -destkeystore {0}.new -deststoretype PKCS12, \
         with Java 9 or later",
        path.display()
    )]
    OldCipher {
        /// The keystore.
        path: PathBuf,
    },
    /// An OCSP response that cannot be had or is not good.
    #[error("{why}")]
    Ocsp {
        /// What is wrong.
        why: String,
    },
    /// A key that is not the leaf's.
    #[error(
        "{}: is not the private key of the first certificate in {}",
        key.display(),
        chain.display()
    )]
    KeyMismatch {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A chain in which a certificate is not followed by its issuer.
    #[error(
        "{}: certificate {position} is not followed by its issuer; expected the leaf first, \
         then each issuer",
        path.display()
    )]
    Order {
        /// The chain's file.
        path: PathBuf,
        /// Position of the certificate whose issuer does not follow; the leaf is 1.
        position: usize,
    },
    /// A certificate outside its time.
    #[error("{}: certificate {position} {why}", path.display())]
    Time {
        /// The chain's file.
        path: PathBuf,
        /// Position in the chain; the leaf is 1.
        position: usize,
        /// `expired on …` or `not valid before …`.
        why: String,
    },
    /// A listener names a certificate the file does not define, or none at all.
    #[error("listener `{listener}`: {}", unknown(certificate))]
    Unknown {
        /// The listener.
        listener: String,
        /// The name that is missing; empty where the list is.
        certificate: String,
    },
    /// OpenSSL refuses the certificate or a rule (weak key, unknown algorithm).
    #[error("certificate `{certificate}`: OpenSSL refuses it: {why}")]
    Refused {
        /// The certificate's name.
        certificate: String,
        /// OpenSSL's words.
        why: String,
    },
}

/// What is wrong with the certificate that a listener names.
fn unknown(certificate: &str) -> String {
    match certificate {
        "" => "tls needs at least one certificate".to_owned(),
        name => format!("unknown certificate `{name}`"),
    }
}
