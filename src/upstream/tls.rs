//! TLS towards a node: who it must be, and who we are to it.
//!
//! In: a connected socket to which nothing but the preamble was written and from which nothing was
//! read. Out: the same under TLS, verified. What a node sends before its handshake is no TLS and
//! ends it (CVE-2026-1642 was a peer that kept such bytes). Source: RFC 9525; FAULTS D37.

use std::io;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{SslConnector, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};
use openssl::x509::{X509, X509Ref};
use tokio_openssl::SslStream;

use crate::stream::side::Side;
use crate::stream::socket::Tcp;

/// How a node is reached under TLS.
pub struct Secure {
    connector: SslConnector,
    name: String,
    /// What it was made of, to see on a reload whether it changes.
    made_of: Made,
}

type Made = (String, bool, Vec<Vec<u8>>);

/// Our own certificate towards a node: chain, leaf first, and key.
pub type Identity<'a> = (&'a X509Ref, &'a [X509], &'a PKeyRef<Private>);

impl Secure {
    /// TLS to a node that must prove to be `name`, a host name or an IP address, by an authority
    /// of `authorities` (`None`: the system's). `verify` off: whoever answers is believed.
    ///
    /// Errors: what OpenSSL says of authorities or identity.
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
    /// Errors: the handshake failed; the words say whether the certificate was refused.
    pub async fn handshake(&self, tcp: Tcp) -> io::Result<Side> {
        let mut config = self.connector.configure()?;
        if !self.made_of.1 {
            config.set_verify_hostname(false);
        }
        // An address is no server name (RFC 6066 §3); OpenSSL then compares it with the
        // certificate's addresses.
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
