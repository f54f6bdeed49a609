//! Says what is wrong with a certificate, and what to do about it.
//!
//! In: a [`Fault`]. Out: one sentence; never a secret.

use std::fmt;

use super::Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreadable { path, why } => {
                write!(f, "{}: cannot be read: {why}", path.display())
            }
            Fault::Malformed { path, why } => write!(f, "{}: {why}", path.display()),
            Fault::Incomplete => f.write_str("expected `chain` and `key`, or `keystore`"),
            Fault::Encrypted { path } => write!(
                f,
                "{}: the private key is encrypted; expected `password_file` or `password_env`",
                path.display()
            ),
            Fault::WrongPassword { path } => {
                write!(f, "{}: the password does not open it", path.display())
            }
            Fault::JavaKeystore { path } => {
                let path = path.display();
                write!(
                    f,
                    "{path}: is a keystore in Java's old format; convert it: keytool \
                     -importkeystore -srckeystore {path} -destkeystore {path}.p12 \
                     -deststoretype PKCS12"
                )
            }
            Fault::OldCipher { path } => {
                let path = path.display();
                write!(
                    f,
                    "{path}: is sealed by a cipher that is no longer safe (RC2, as Java 8 wrote); \
                     write it anew: keytool -importkeystore -srckeystore {path} \
                     -destkeystore {path}.new -deststoretype PKCS12, with Java 9 or later"
                )
            }
            Fault::NoPassword { from: why } | Fault::Ocsp { why } => f.write_str(why),
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
