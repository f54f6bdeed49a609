//! TLS towards a node: the name it must prove, and our certificate for it.
//!
//! In: a connected socket on which only the preamble was written and no byte was read. Out: the same socket
//! under TLS, verified. Bytes of a node before its handshake are not TLS and end it (CVE-2026-1642 was a peer
//! that kept such bytes).
//! Source: RFC 9525; FAULTS D37.

use std::io;
use std::pin::Pin;

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{SslConnector, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};
use openssl::x509::store::X509Store;
use openssl::x509::{X509, X509Ref, X509StoreContextRef};
use pushgate_plugins::host;
use tokio_openssl::SslStream;

use crate::stream::side::Side;
use crate::stream::socket::Tcp;

/// The TLS settings for one node.
pub struct Secure {
    name: String,
    verify: bool,
    /// Swapped when a file changes; live connections keep theirs.
    made: ArcSwap<Made>,
}

/// What the files give.
struct Made {
    connector: SslConnector,
    /// Every file's content, so that a change is detected.
    material: Vec<Vec<u8>>,
}

/// Our certificate towards a node: leaf, issuers, key.
pub type Identity<'a> = (&'a X509Ref, &'a [X509], &'a PKeyRef<Private>);

/// Who may have issued a node's certificate.
pub struct Trusted {
    /// The authorities, and what they revoked.
    pub store: X509Store,
    /// What the store is made of, so that a change is detected.
    pub material: Vec<Vec<u8>>,
    /// The callback of a verification with this store.
    pub callback: fn(bool, &mut X509StoreContextRef) -> bool,
}

impl Secure {
    /// Prepares TLS to a node that must prove to be `name`, a host name or an IP address, by an authority that
    /// is `trusted` (`None`: the system's). The dot at the end of an absolute name does not count, because no
    /// certificate has it (RFC 6066 §3). `verify` off: any certificate is accepted.
    ///
    /// Errors: OpenSSL refuses the system's authorities or the identity.
    pub fn new(
        name: &str,
        verify: bool,
        trusted: Option<Trusted>,
        identity: Option<Identity<'_>>,
    ) -> Result<Secure, ErrorStack> {
        let mut context = SslConnector::builder(SslMethod::tls_client())?;
        context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        // Connections to nodes live long; a session kept for each would only take memory.
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        let mut material = Vec::new();
        context.set_verify(match verify {
            true => SslVerifyMode::PEER,
            false => SslVerifyMode::NONE,
        });
        if let Some(trusted) = trusted {
            context.set_cert_store(trusted.store);
            material.extend(trusted.material);
            if verify {
                context.set_verify_callback(SslVerifyMode::PEER, trusted.callback);
            }
        } else if let Some(file) = openssl_probe::probe().cert_file {
            // The built-in OpenSSL does not know where the system keeps its authorities.
            context.set_ca_file(file)?;
        }
        if let Some((leaf, issuers, key)) = identity {
            context.set_certificate(leaf)?;
            context.set_private_key(key)?;
            material.push(leaf.to_der()?);
            for issuer in issuers {
                context.add_extra_chain_cert(issuer.clone())?;
                material.push(issuer.to_der()?);
            }
        }
        let connector = context.build();
        Ok(Secure {
            name: host::to_ascii(name).trim_end_matches('.').to_owned(),
            verify,
            made: ArcSwap::from_pointee(Made {
                connector,
                material,
            }),
        })
    }

    /// Whether both demand the same proof of the node. Their files may differ: see [`Secure::adopt`].
    pub fn is_same(&self, other: &Secure) -> bool {
        (&self.name, self.verify) == (&other.name, other.verify)
    }

    /// Takes over what `new` has read from files, for connections from now on. Returns whether it differs.
    pub fn adopt(&self, new: &Secure) -> bool {
        let made = new.made.load_full();
        let differs = made.material != self.made.load().material;
        if differs {
            self.made.store(made);
        }
        differs
    }

    /// Shakes hands over `tcp`. The caller sets the deadline.
    ///
    /// Errors: the handshake failed; the text says whether the certificate was refused.
    pub async fn handshake(&self, tcp: Tcp) -> io::Result<Side> {
        let mut config = self.made.load().connector.configure()?;
        if !self.verify {
            config.set_verify_hostname(false);
        }
        // An address is not a server name (RFC 6066 §3); OpenSSL compares it with the addresses in the
        // certificate instead.
        let ssl = config.into_ssl(&self.name)?;
        let mut stream = SslStream::new(ssl, tcp)?;
        match Pin::new(&mut stream).connect().await {
            Ok(()) => Ok(Side::Tls(Box::new(stream))),
            Err(e) => {
                let verdict = stream.ssl().verify_result();
                let why = match verdict.as_raw() {
                    0 => e.to_string(),
                    _ => format!("its certificate is refused: {}", verdict.error_string()),
                };
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;

    use super::*;

    /// Aim: a change of the issuers alone is taken over, once. Fails if only the leaf is compared: the node
    /// would get the old chain until the next restart.
    #[test]
    fn changed_issuers_are_a_change() {
        let made = || -> Result<_, ErrorStack> {
            let key = PKey::generate_ed25519()?;
            let mut leaf = X509::builder()?;
            leaf.set_pubkey(&key)?;
            leaf.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
            leaf.set_not_after(Asn1Time::days_from_now(1)?.as_ref())?;
            leaf.sign(&key, MessageDigest::null())?;
            let leaf = leaf.build();
            let of = |issuers: &[X509]| {
                Secure::new("n1.internal.", true, None, Some((&leaf, issuers, &key)))
            };
            Ok((of(&[])?, of(&[])?, of(std::slice::from_ref(&leaf))?))
        };
        let (running, same, other) = made().expect("TLS");
        assert_eq!(running.name, "n1.internal");
        assert!(running.is_same(&same) && !running.adopt(&same));
        assert!(running.is_same(&other) && running.adopt(&other));
        assert!(!running.adopt(&other));
    }
}
