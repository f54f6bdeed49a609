//! TLS towards a node: the name it must prove, and our certificate for it.
//!
//! In: a connected socket on which only the preamble was written and no byte was read. Out: the same socket
//! under TLS, verified. Bytes of a node before its handshake are not TLS and end it (CVE-2026-1642 was a peer
//! that kept such bytes).
//! Source: RFC 9525; FAULTS D37.

use std::io;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{SslConnector, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};
use openssl::x509::{X509, X509Ref};
use tokio_openssl::SslStream;

use crate::stream::side::Side;
use crate::stream::socket::Tcp;

/// The TLS settings for one node.
pub struct Secure {
    connector: SslConnector,
    name: String,
    /// The inputs of `new`, so that a reload can detect a change.
    made_of: Made,
}

type Made = (String, bool, Vec<Vec<u8>>);

/// Our certificate towards a node: leaf, issuers, key.
pub type Identity<'a> = (&'a X509Ref, &'a [X509], &'a PKeyRef<Private>);

impl Secure {
    /// Prepares TLS to a node that must prove to be `name`, a host name or an IP address, by one of
    /// `authorities` (`None`: the system's). `verify` off: any certificate is accepted.
    ///
    /// Errors: OpenSSL refuses an authority or the identity.
    pub fn new(
        name: &str,
        verify: bool,
        authorities: Option<&[X509]>,
        identity: Option<Identity<'_>>,
    ) -> Result<Secure, ErrorStack> {
        let mut context = SslConnector::builder(SslMethod::tls_client())?;
        context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        // Connections to nodes live long; a session kept for each would only take memory.
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        let mut material = Vec::new();
        if let Some(authorities) = authorities {
            let mut store = openssl::x509::store::X509StoreBuilder::new()?;
            for authority in authorities {
                store.add_cert(authority.clone())?;
                material.push(authority.to_der()?);
            }
            context.set_cert_store(store.build());
        } else if let Some(file) = openssl_probe::probe().cert_file {
            // The built-in OpenSSL does not know where the system keeps its authorities.
            context.set_ca_file(file)?;
        }
        if let Some((leaf, issuers, key)) = identity {
            context.set_certificate(leaf)?;
            context.set_private_key(key)?;
            for issuer in issuers {
                context.add_extra_chain_cert(issuer.clone())?;
            }
            material.push(leaf.to_der()?);
        }
        if !verify {
            context.set_verify(SslVerifyMode::NONE);
        }
        Ok(Secure {
            connector: context.build(),
            name: name.to_owned(),
            made_of: (name.to_owned(), verify, material),
        })
    }

    /// Whether both reach the node in the same way.
    pub fn is_same(&self, other: &Secure) -> bool {
        self.made_of == other.made_of
    }

    /// Shakes hands over `tcp`. The caller sets the deadline.
    ///
    /// Errors: the handshake failed; the text says whether the certificate was refused.
    pub async fn handshake(&self, tcp: Tcp) -> io::Result<Side> {
        let mut config = self.connector.configure()?;
        if !self.made_of.1 {
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
