//! The error of a certificate: says what is wrong and how to correct it.
//!
//! In: the facts of a fault. Out: one sentence, which never contains a secret.

use std::path::PathBuf;

/// What is wrong with a certificate, or with a listener's set of certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is larger than 1 MiB.
    #[error("{}: cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error text.
        why: String,
    },
    /// The file does not have the expected content.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected, and OpenSSL's error text.
        why: String,
    },
    /// The certificate has neither `chain` and `key`, nor a `keystore`, nor `acme`.
    #[error("expected `chain` and `key`, `keystore` or `acme`")]
    Incomplete,
    /// The private key is encrypted and no password is configured.
    #[error(
        "{}: the private key is encrypted; expected `password_file` or `password_env`",
        path.display()
    )]
    Encrypted {
        /// The key's file.
        path: PathBuf,
    },
    /// The password does not open the key or keystore.
    #[error("{}: the password does not open it", path.display())]
    WrongPassword {
        /// The file of the key or keystore.
        path: PathBuf,
    },
    /// The configured password is missing.
    #[error("{from}")]
    NoPassword {
        /// Says where the password is expected and what is wrong there.
        from: String,
    },
    /// The keystore has Java's old format (JKS or JCEKS).
    #[error(
        "{0}: is a keystore in Java's old format; convert it: keytool -importkeystore \
         -srckeystore {0} -destkeystore {0}.p12 -deststoretype PKCS12",
        path.display()
    )]
    JavaKeystore {
        /// The keystore.
        path: PathBuf,
    },
    /// The keystore is encrypted with a cipher that is no longer safe.
    #[error(
        "{0}: is encrypted with a cipher that is no longer safe (RC2, from Java 8); convert it with \
         Java 9 or later: keytool -importkeystore -srckeystore {0} -destkeystore {0}.new \
         -deststoretype PKCS12",
        path.display()
    )]
    OldCipher {
        /// The keystore.
        path: PathBuf,
    },
    /// No key of the keystore has this alias.
    #[error("{}: no key is called `{alias}`; its keys are {known}", path.display())]
    Alias {
        /// The keystore.
        path: PathBuf,
        /// The alias of the configuration.
        alias: String,
        /// The keys of the keystore.
        known: String,
    },
    /// Several keys of the keystore are of one kind and cover one name.
    #[error("{}: several keys could serve one name: {known}; expected `alias`", path.display())]
    Aliases {
        /// The keystore.
        path: PathBuf,
        /// The keys.
        known: String,
    },
    /// The OCSP response is missing or not valid.
    #[error("{why}")]
    Ocsp {
        /// What is wrong.
        why: String,
    },
    /// The private key belongs to no certificate of the chain.
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
    /// The file has a certificate that belongs to no chain of the leaf.
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
    /// The leaf has expired or is not valid yet.
    #[error("{}: certificate {position} {why}", path.display())]
    Time {
        /// The chain's file.
        path: PathBuf,
        /// Position in the chain; the leaf is 1.
        position: usize,
        /// `expired on …` or `is not valid before …`.
        why: String,
    },
    /// No authority has issued the certificate yet, so a placeholder stands in.
    #[error("{}: no authority has issued it yet", path.display())]
    NotIssued {
        /// The file that will have it.
        path: PathBuf,
    },
    /// A listener names a certificate that the file does not define, or no certificate.
    #[error("listener `{listener}`: {}", unknown(certificate))]
    Unknown {
        /// The listener.
        listener: String,
        /// The unknown name; empty if the listener's list is empty.
        certificate: String,
    },
    /// OpenSSL refuses the certificate or a TLS setting (weak key, unknown algorithm).
    #[error("certificate `{certificate}`: OpenSSL refuses it: {why}")]
    Refused {
        /// The certificate's name.
        certificate: String,
        /// OpenSSL's error text.
        why: String,
    },
}

/// Says what is wrong with the name of the certificate in a listener.
fn unknown(certificate: &str) -> String {
    match certificate {
        "" => "tls needs at least one certificate".to_owned(),
        name => format!("unknown certificate `{name}`"),
    }
}
