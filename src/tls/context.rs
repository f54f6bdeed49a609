//! Builds an OpenSSL context: the rules of a handshake and the certificates it shows.
//!
//! In: [`Loaded`] certificates and the listener's [`Rules`]. Out: the builder of an acceptor.
//! Source: Mozilla Server Side TLS 5.7, "modern" and "intermediate"; RFC 7301 §3.2 (ALPN);
//! FAULTS D33–D35.

use std::ffi::c_int;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use foreign_types::ForeignType;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::sha::Sha256;
use openssl::ssl::{
    AlpnError, SslAcceptor, SslAcceptorBuilder, SslContext, SslContextBuilder, SslMethod, SslMode,
    SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::stack::Stack;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Name};

use super::guard::guard;
use super::revoked::{self, lists_of};
use super::tickets::{self, Ring};
use crate::config::defaults::CIPHERS;
use crate::config::{
    ClientCertificate, Listener, ListenerTls, Mode, Profile, Protocols, Version, default_groups,
};
use crate::credentials::{Crls, Loaded, TlsError, authorities_of, unix_now};

/// `SSL_CTRL_CHAIN_CERT` of OpenSSL's `ssl.h`: adds an issuer to the certificate set last.
const ADD_CHAIN_CERT: c_int = 89;

const H2_THEN_H1: &[&str] = &["h2", "http/1.1"];
const H1: &[&str] = &["http/1.1"];

/// Returns the ex_data index at which a context stores the names of the certificates it shows.
pub(super) fn names_index() -> Result<Index<SslContext, Arc<[String]>>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Arc<[String]>>> = OnceLock::new();
    match INDEX.get() {
        Some(index) => Ok(*index),
        None => {
            let index = SslContext::new_ex_index()?;
            Ok(*INDEX.get_or_init(|| index))
        }
    }
}

/// The settings that all contexts of a listener share.
pub(super) struct Rules {
    alpn: Alpn,
    ring: Arc<Ring>,
    min: SslVersion,
    max: Option<SslVersion>,
    ciphers: String,
    groups: String,
    clients: Option<Clients>,
    profile: Profile,
}

/// Which client certificates a listener accepts.
struct Clients {
    authorities: Vec<X509>,
    revoked: Crls,
    how: ClientCertificate,
    /// Hash of authorities and lists.
    digest: [u8; 32],
}

/// The protocols a listener accepts by ALPN.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alpn {
    /// The accepted protocols in the wire format of the extension, best first.
    ours: Vec<u8>,
    /// Whether to refuse a client that offers no accepted protocol (RFC 7301 §3.2).
    strict: bool,
}

impl Alpn {
    /// Returns the protocols of a listener. At layer 4 without a list the edge selects `http/1.1` if the
    /// client offers it, else it sends no ALPN answer. It never selects `h2` there, because it cannot ask
    /// the node.
    fn of(mode: Mode, tls: &ListenerTls) -> Self {
        let listed = |names: &[&str]| {
            let name = |n: &&str| [&[n.len() as u8], n.as_bytes()].concat();
            names.iter().flat_map(name).collect()
        };
        let (ours, strict) = match (mode, &tls.alpn, tls.h2) {
            (Mode::Tcp, Some(Protocols(names)), _) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                (listed(&names), true)
            }
            (Mode::Tcp, None, _) => (listed(H1), false),
            (Mode::Http, _, true) => (listed(H2_THEN_H1), true),
            (Mode::Http, _, false) => (listed(H1), true),
        };
        Alpn { ours, strict }
    }
}

/// Iterates over the names in an ALPN extension.
fn protocols(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = list.split_first()?;
        let (name, behind) = rest.split_at_checked(usize::from(*length))?;
        list = behind;
        Some(name)
    })
}

impl Rules {
    /// Reads the rules of `listener`, whose `tls:` section is `tls`; relative paths are below `dir`.
    ///
    /// Errors: a `client_ca` or `client_crl` that cannot be read.
    pub fn new(
        listener: &Listener,
        tls: &ListenerTls,
        ring: Arc<Ring>,
        dir: &Path,
    ) -> Result<Rules, TlsError> {
        let alpn = Alpn::of(listener.mode, tls);
        let lowest = match tls.profile {
            Profile::Modern => Version::Tls13,
            Profile::Intermediate => Version::Tls12,
        };
        let joined = |own: Option<&[String]>, default: &[&str]| match own {
            Some(words) => words.join(":"),
            None => default.join(":"),
        };
        let clients = match &tls.client_ca {
            None => None,
            Some(file) => {
                let authorities = authorities_of(&dir.join(file))?;
                let lists = tls.client_crl.as_ref();
                let revoked = lists.map(|lists| lists_of(&dir.join(lists), &authorities));
                let revoked = revoked.transpose()?.unwrap_or_default();
                Some(Clients {
                    digest: digest_of(&authorities, &revoked).map_err(|e| TlsError::Malformed {
                        path: dir.join(file),
                        why: e.to_string(),
                    })?,
                    revoked,
                    authorities,
                    how: tls.client_certificate,
                })
            }
        };
        Ok(Rules {
            alpn,
            ring,
            min: version(tls.min_version.unwrap_or(lowest)),
            max: tls.max_version.map(version),
            ciphers: joined(tls.ciphers.as_deref(), &CIPHERS),
            groups: joined(tls.groups.as_deref(), default_groups()),
            clients,
            profile: tls.profile,
        })
    }

    /// Whether contexts built by `other` are as those built by these rules.
    pub fn is_same(&self, other: &Rules) -> bool {
        let clients = |rules: &Rules| rules.clients.as_ref().map(|c| (c.how, c.digest));
        let versions = |rules: &Rules| (rules.min, rules.max, rules.profile);
        Arc::ptr_eq(&self.ring, &other.ring)
            && self.alpn == other.alpn
            && versions(self) == versions(other)
            && (&self.ciphers, &self.groups) == (&other.ciphers, &other.groups)
            && clients(self) == clients(other)
    }

    /// Returns a builder with all rules and the certificates `shown` installed. These have keys of
    /// different kinds; OpenSSL shows the one that the client can verify.
    pub fn context(&self, shown: &[Arc<Loaded>]) -> Result<SslAcceptorBuilder, ErrorStack> {
        let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        context.set_min_proto_version(Some(self.min))?;
        context.set_max_proto_version(self.max)?;
        context.set_cipher_list(&self.ciphers)?;
        context.set_groups_list(&self.groups)?;
        context.set_options(
            SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::CIPHER_SERVER_PREFERENCE
                // A client that puts ChaCha20 first has no AES in hardware; its preference wins.
                | SslOptions::PRIORITIZE_CHACHA,
        );
        // Saves 34 KiB for each silent connection.
        context.set_mode(SslMode::RELEASE_BUFFERS);
        // One read(2) for each record instead of two saves 5 % of a request's CPU.
        context.set_read_ahead(true);
        // Sessions resume by ticket only, because a cache would grow with the number of clients.
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        tickets::install(&mut context, self.ring.clone())?;
        self.install_alpn(&mut context);
        // Acknowledges the server name to the client; the ClientHello callback made the choice. A constant
        // cannot panic, so it has no guard.
        context.set_servername_callback(|_, _| Ok(()));
        for one in shown {
            context.set_certificate(&one.leaf)?;
            context.set_private_key(&one.key)?;
            for issuer in &one.issuers {
                add_issuer(&mut context, issuer)?;
            }
        }
        install_staples(&mut context, shown)?;
        self.install_clients(&mut context)?;
        let names = shown.iter().flat_map(|one| one.names.iter().cloned());
        context.set_ex_data(names_index()?, names.collect());
        context.set_session_id_context(&self.resumption_scope(shown)?)?;
        Ok(context)
    }

    fn install_alpn(&self, context: &mut SslContextBuilder) {
        let Alpn { ours, strict } = self.alpn.clone();
        context.set_alpn_select_callback(move |_, offered| {
            let none = match strict {
                true => AlpnError::ALERT_FATAL,
                false => AlpnError::NOACK,
            };
            let choose = || {
                let mut chosen =
                    protocols(&ours).filter_map(|our| protocols(offered).find(|o| *o == our));
                chosen.next().ok_or(none)
            };
            guard("ALPN", choose, || Err(AlpnError::ALERT_FATAL))
        });
    }

    /// Asks clients for a certificate. If it is optional, a bad certificate does not end the handshake:
    /// the connection keeps the result of the verification, and plugins can pass it to the node.
    fn install_clients(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let Some(clients) = &self.clients else {
            context.set_verify(SslVerifyMode::NONE);
            return Ok(());
        };
        let mut names: Stack<X509Name> = Stack::new()?;
        for authority in &clients.authorities {
            context.cert_store_mut().add_cert(authority.clone())?;
            names.push(authority.subject_name().to_owned()?)?;
        }
        context.set_client_ca_list(names);
        let store = context.cert_store_mut();
        // An authority of the file is trusted although its own issuer is not there.
        store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        revoked::install(&clients.revoked, store)?;
        match clients.how {
            ClientCertificate::Required => {
                let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
                context.set_verify_callback(mode, revoked::forgives);
            }
            ClientCertificate::Optional => {
                context.set_verify_callback(SslVerifyMode::PEER, revoked::forgives);
                revoked::only_judge(context);
            }
        }
        Ok(())
    }

    /// Returns the session id context. A session resumes only under the certificates and the client
    /// authentication rules under which it began. Without this, a ticket of one virtual host would open
    /// another (nginx had this bug: CVE-2025-23419).
    fn resumption_scope(&self, shown: &[Arc<Loaded>]) -> Result<[u8; 32], ErrorStack> {
        let mut hash = Sha256::new();
        hash.update(&[self.profile as u8]);
        for one in shown {
            hash.update(&one.leaf.to_der()?);
        }
        if let Some(clients) = &self.clients {
            hash.update(&[clients.how as u8]);
            hash.update(&clients.digest);
        }
        Ok(hash.finish())
    }
}

fn version(version: Version) -> SslVersion {
    match version {
        Version::Tls12 => SslVersion::TLS1_2,
        Version::Tls13 => SslVersion::TLS1_3,
    }
}

/// Adds an issuer to the chain of the certificate set last. rust-openssl has only one chain for all
/// certificates of a context.
fn add_issuer(context: &mut SslContextBuilder, issuer: &X509) -> Result<(), ErrorStack> {
    // SAFETY: both are live; the argument 1 makes OpenSSL take a reference of its own.
    let done = unsafe {
        openssl_sys::SSL_CTX_ctrl(context.as_ptr(), ADD_CHAIN_CERT, 1, issuer.as_ptr().cast())
    };
    if done == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

fn install_staples(
    context: &mut SslContextBuilder,
    shown: &[Arc<Loaded>],
) -> Result<(), ErrorStack> {
    let staples: Vec<_> = shown
        .iter()
        .map(|one| (one.leaf.clone(), one.staple.clone()))
        .collect();
    context.set_status_callback(move |ssl| {
        let attach = || {
            let of = |leaf: &X509| ssl.certificate().is_some_and(|served| *served == **leaf);
            let staple = staples.iter().find(|(leaf, _)| of(leaf));
            match staple.and_then(|(_, staple)| staple.response(unix_now())) {
                Some(response) => ssl.set_ocsp_status(&response.der).map(|()| true),
                None => Ok(false),
            }
        };
        // The handshake goes on without a staple, as it does when the responder is unreachable.
        guard("OCSP staple", attach, || Ok(false))
    })
}

/// Hashes authorities and their lists, once for all contexts: a list may have many MiB. A resumed session is not
/// verified again, so a new list makes old tickets useless.
fn digest_of(authorities: &[X509], revoked: &Crls) -> Result<[u8; 32], ErrorStack> {
    let mut hash = Sha256::new();
    for authority in authorities {
        hash.update(&authority.to_der()?);
    }
    for list in revoked.ders()? {
        hash.update(&list);
    }
    Ok(hash.finish())
}

#[cfg(test)]
mod tests {
    /// Decision 0010: OpenSSL has buffers for one record, which saves 9 KiB for each connection. Fails with
    /// an OpenSSL that has room for 32, as a `target` folder built earlier has. `cargo clean -p openssl-sys`
    /// (also with `--release`) makes cargo build OpenSSL again.
    #[test]
    fn openssl_has_room_for_one_record() {
        /// From openssl/ssl.h; openssl-sys lacks it.
        const SET_MAX_PIPELINES: std::ffi::c_int = 126;
        let builder = openssl::ssl::SslContext::builder(openssl::ssl::SslMethod::tls()).unwrap();
        let accepts = |n| {
            let none = std::ptr::null_mut();
            // SAFETY: the context lives; this control takes a number and no pointer.
            unsafe { openssl_sys::SSL_CTX_ctrl(builder.as_ptr(), SET_MAX_PIPELINES, n, none) == 1 }
        };
        assert!(accepts(1), "OpenSSL knows the control");
        assert!(!accepts(2), "see .cargo/openssl-perl");
    }
}
