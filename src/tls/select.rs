//! Chooses the certificate of a handshake: by exact name, by wildcard, the VIP's default, the first. With
//! `choose: vip` names do not count.
//!
//! In: a listener's `tls:`; then, per connection, the VIP and the ClientHello. Out: the acceptor
//! with the right certificates, or the alert `unrecognized_name` if `strict_sni` is set and no certificate covers
//! the name, or the client sends none. An authority that asks for an open challenge gets its proof.
//! Source: Lightstreamer clustering §3.2.1 (one certificate for all names: §3.2.1.3, §3.2.1.4), §3.2.2
//! (one for each: §3.2.2.3, §3.2.2.4); RFC 6066 §3; RFC 6125 §6.4.3 (wildcards).

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use openssl::ssl::{ClientHelloResponse, SslAcceptor, SslAlert, SslRef, SslVerifyMode};

use super::context::Rules;
use super::guard::guard;
use super::names::{Names, Served, is_covered, patterns, refused};
use super::server_name;
use super::store::Store;
use super::tickets::Ring;
use crate::acme::tls_answer;
use crate::config::{Choose, Listener, ListenerTls};
use crate::credentials::{Loaded, TlsError, unix_now};

/// Holds the acceptors of one listener. [`TlsFront::reload`] swaps them all at once.
pub struct TlsFront {
    ring: Arc<Ring>,
    acceptors: ArcSwap<Acceptors>,
}

impl TlsFront {
    /// Builds the acceptors of `listener`, which must have a `tls:` section. Certificates come from
    /// `store`; relative paths are below `dir`.
    ///
    /// Errors: the first [`TlsError`] in the listener's rules or its list of certificates.
    pub fn new(
        listener: &Listener,
        store: &Store,
        ring: Arc<Ring>,
        dir: &Path,
    ) -> Result<TlsFront, TlsError> {
        let acceptors = Acceptors::build(listener, store, &ring, dir, None)?;
        Ok(TlsFront {
            ring,
            acceptors: ArcSwap::from_pointee(acceptors),
        })
    }

    /// Returns the acceptor for a client that reached `vip` (the local address of its socket).
    pub fn acceptor(&self, vip: SocketAddr) -> SslAcceptor {
        let acceptors = self.acceptors.load();
        acceptors
            .by_vip
            .get(&canonical(vip))
            .unwrap_or(&acceptors.default)
            .clone()
    }

    /// Builds the certificates of a changed section, for [`TlsFront::swap`].
    ///
    /// Errors: as [`TlsFront::new`].
    pub fn prepare(
        &self,
        listener: &Listener,
        store: &Store,
        dir: &Path,
    ) -> Result<Acceptors, TlsError> {
        let old = self.acceptors.load();
        let old = old.names.as_deref();
        Acceptors::build(listener, store, &self.ring, dir, old)
    }

    /// Swaps in prepared certificates. Live connections keep what they have; tickets stay valid for
    /// certificates that did not change. A change of `mode`, `h2` or `alpn` makes a new listener instead.
    /// Returns the old certificates: to free thousands of them takes long.
    pub fn swap(&self, acceptors: Acceptors) -> Arc<Acceptors> {
        self.acceptors.swap(Arc::new(acceptors))
    }

    /// Prepares the certificates and swaps them in.
    ///
    /// Errors: as [`TlsFront::new`]; the listener then keeps serving the old certificates.
    pub fn reload(&self, listener: &Listener, store: &Store, dir: &Path) -> Result<(), TlsError> {
        self.swap(self.prepare(listener, store, dir)?);
        Ok(())
    }
}

/// One acceptor for each default certificate. Every acceptor knows all names of the listener.
pub struct Acceptors {
    default: SslAcceptor,
    by_vip: HashMap<SocketAddr, SslAcceptor>,
    /// `None` if the VIP chooses.
    names: Option<Arc<Names>>,
}

impl Acceptors {
    /// Builds them. A certificate that did not change keeps the context that it has in `old`.
    fn build(
        listener: &Listener,
        store: &Store,
        ring: &Arc<Ring>,
        dir: &Path,
        old: Option<&Names>,
    ) -> Result<Acceptors, TlsError> {
        let unknown = |certificate: &str| TlsError::Unknown {
            listener: listener.name.clone(),
            certificate: certificate.to_owned(),
        };
        let tls = listener.tls.as_ref().ok_or_else(|| unknown(""))?;
        let rules = Arc::new(Rules::new(listener, tls, ring.clone(), dir)?);
        let served = served(tls, store, unknown)?;
        let names = match tls.choose {
            Choose::Name => Some(Arc::new(Names::new(&rules, &served, old)?)),
            Choose::Vip => None,
        };
        let acceptor = |word: &str| -> Result<SslAcceptor, TlsError> {
            let first = store.get(word).ok_or_else(|| unknown(word))?;
            let now = unix_now();
            let first = first
                .each()
                .find(|one| one.is_in_time(now))
                .unwrap_or(first);
            let shown = with_companions(first, &companions(tls, &served, word));
            let chosen = match &names {
                Some(names) => Chosen::ByName(names.clone()),
                None => Chosen::ByVip(shown.iter().flat_map(|l| l.names.clone()).collect()),
            };
            acceptor(&rules, &shown, chosen, tls.strict_sni).map_err(|e| refused(word, &e))
        };
        let first = tls.certificates.first().ok_or_else(|| unknown(""))?;
        let by_vip = tls.by_vip.iter();
        Ok(Acceptors {
            default: acceptor(first)?,
            by_vip: by_vip
                .map(|(vip, word)| Ok((canonical(*vip), acceptor(word)?)))
                .collect::<Result<_, TlsError>>()?,
            names,
        })
    }
}

/// Returns the listener's certificates in the order of its list, without duplicates. Certificates that are not
/// valid now come last: they serve only the names that no valid one covers.
fn served<'a>(
    tls: &'a ListenerTls,
    store: &Store,
    unknown: impl Fn(&str) -> TlsError,
) -> Result<Served<'a>, TlsError> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let words = tls.certificates.iter().chain(tls.by_vip.values());
    for word in words.filter(|word| seen.insert(word.as_str())) {
        let loaded = store.get(word).ok_or_else(|| unknown(word))?;
        all.extend(loaded.each().map(|one| (word, one.clone())));
    }
    let now = unix_now();
    all.sort_by_key(|(_, loaded)| !loaded.is_in_time(now));
    Ok(all)
}

/// Returns the certificates that may be shown beside the one called `word`. If the VIP chooses, that of another
/// VIP may not.
fn companions<'a>(tls: &ListenerTls, served: &Served<'a>, word: &str) -> Served<'a> {
    let of_another = |name: &str| name != word && tls.by_vip.values().any(|vip| vip == name);
    let all = served.iter();
    all.filter(|(name, _)| tls.choose == Choose::Name || !of_another(name))
        .cloned()
        .collect()
}

/// Returns `first` and, for each other kind of key, the first certificate that covers all its names. None of
/// these is over while `first` is valid: a client might get it.
fn with_companions(first: &Arc<Loaded>, served: &Served<'_>) -> Vec<Arc<Loaded>> {
    let now = unix_now();
    let mut shown = vec![first.clone()];
    for (_, other) in served {
        if first.is_in_time(now) && !other.is_in_time(now) {
            break;
        }
        let new_kind = shown.iter().all(|one| one.kind() != other.kind());
        if new_kind && first.names.iter().all(|name| other.names.contains(name)) {
            shown.push(other.clone());
        }
    }
    shown
}

/// The certificate that a handshake gets, and the rule that chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first certificate of the list that covers the client's server name, and the name in it that
    /// matched.
    Name(String, String),
    /// The default certificate of the VIP.
    Vip(String),
    /// The first certificate of the list.
    First(String),
    /// No certificate: the handshake is refused (`strict_sni`).
    Refused,
}

/// Returns the certificate (by its name in the file) for a client that reached `vip` and asks for `sni`.
/// Follows the rules of a real handshake; used by `explain`.
pub fn choice(tls: &ListenerTls, store: &Store, vip: SocketAddr, sni: Option<&str>) -> Choice {
    let served = served(tls, store, |_| TlsError::Incomplete).unwrap_or_default();
    let mut all = tls.by_vip.iter();
    let by_vip = all.find(|(address, _)| canonical(**address) == canonical(vip));
    let default = match by_vip {
        Some((_, word)) => Choice::Vip(word.clone()),
        None => Choice::First(tls.certificates.first().cloned().unwrap_or_default()),
    };
    let (Choice::Vip(shown) | Choice::First(shown)) = &default else {
        return default;
    };
    let counts = |word: &str| tls.choose == Choose::Name || word == shown;
    let asked = sni.and_then(|name| server_name::normalised(name.as_bytes()));
    let found = asked.iter().flat_map(|name| patterns(name)).find_map(|p| {
        let yields = |l: &Loaded| l.is_placeholder && is_covered(&served, &p);
        let covers = |(word, l): &&(&String, Arc<Loaded>)| {
            counts(word) && l.names.iter().any(|n| *n == p) && !yields(l)
        };
        let (word, _) = served.iter().find(covers)?;
        Some(Choice::Name((*word).clone(), p.into_owned()))
    });
    match found {
        Some(found) if tls.choose == Choose::Name => found,
        None if tls.strict_sni => Choice::Refused,
        _ => default,
    }
}

/// What the client's server name does.
enum Chosen {
    /// It chooses the certificate.
    ByName(Arc<Names>),
    /// Nothing: the VIP has chosen a certificate that covers these names.
    ByVip(BTreeSet<String>),
}

impl Chosen {
    /// Makes the choice for a client that asks for `name`. Returns whether the certificate covers it.
    ///
    /// Errors: OpenSSL refuses the context.
    fn apply(&self, ssl: &mut SslRef, name: &str) -> Result<bool, ErrorStack> {
        let names = match self {
            Chosen::ByVip(names) => return Ok(patterns(name).any(|p| names.contains(&*p))),
            Chosen::ByName(names) => names,
        };
        match names.find(name) {
            Some(context) => ssl.set_ssl_context(context).map(|()| true),
            None => Ok(false),
        }
    }
}

/// Builds an acceptor that shows `shown` unless another certificate covers the client's server name.
/// The ClientHello callback runs before OpenSSL looks up a session, so the choice also decides which
/// tickets are valid.
fn acceptor(
    rules: &Rules,
    shown: &[Arc<Loaded>],
    chosen: Chosen,
    strict: bool,
) -> Result<SslAcceptor, ErrorStack> {
    let mut context = rules.context(shown)?;
    context.set_client_hello_callback(move |ssl: &mut SslRef, alert: &mut SslAlert| {
        let choose = || {
            let asked = server_name::asked(ssl);
            if let Some(proof) = tls_answer(asked.as_deref(), server_name::offered(ssl)) {
                // An authority asks whether the name leads here, and has no certificate that `client_certificate`
                // could ask for. The connection carries nothing else.
                ssl.set_verify(SslVerifyMode::NONE);
                ssl.set_ssl_context(&proof)?;
                return Ok(ClientHelloResponse::SUCCESS);
            }
            let covered = match asked {
                Some(name) => chosen.apply(ssl, &name)?,
                None => false,
            };
            if strict && !covered {
                *alert = SslAlert::UNRECOGNIZED_NAME;
                return Err(ErrorStack::get());
            }
            Ok(ClientHelloResponse::SUCCESS)
        };
        guard("ClientHello", choose, || Err(ErrorStack::get()))
    });
    Ok(context.build())
}

/// Unmaps an IPv4-mapped address: `::ffff:10.0.0.1` and `10.0.0.1` are the same VIP.
fn canonical(vip: SocketAddr) -> SocketAddr {
    SocketAddr::new(vip.ip().to_canonical(), vip.port())
}
