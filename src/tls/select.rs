//! Chooses the certificate of a handshake: exact name, wildcard, the VIP's default, the first.
//!
//! In: a listener's `tls:`; then, per connection, the VIP and the ClientHello. Out: the acceptor
//! with the right certificate, or the alert `unrecognized_name` where `strict_sni` asks for it.
//! Source: Lightstreamer clustering §3.2.1 (one certificate for all names: §3.2.1.3, §3.2.1.4), §3.2.2
//! (one for each: §3.2.2.3, §3.2.2.4); RFC 6066 §3; RFC 6125 §6.4.3 (wildcards).

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use openssl::ssl::{ClientHelloResponse, SslAcceptor, SslAlert, SslContext, SslRef};

use super::Fault;
use super::context::{Alpn, Rules, TicketKeys};
use super::server_name;
use super::store::Loaded;
use crate::config::{Config, Listener, ListenerTls, Mode};

/// The TLS side of one listener. Cheap to share; [`TlsFront::reload`] swaps it whole.
pub struct TlsFront {
    rules: Rules,
    acceptors: ArcSwap<Acceptors>,
}

impl TlsFront {
    /// Loads the certificates of `listener`, which must have a `tls:` section.
    ///
    /// Errors: the first [`Fault`] of a certificate or of the listener's list of them.
    pub fn new(listener: &Listener, config: &Config) -> Result<TlsFront, Fault> {
        let tickets = TicketKeys::random().map_err(|e| refused("session tickets", &e))?;
        let alpn = match (listener.mode, listener.tls.as_ref().is_some_and(|t| t.h2)) {
            (Mode::Tcp, _) => Alpn::Bytes,
            (Mode::Http, true) => Alpn::H2ThenH1,
            (Mode::Http, false) => Alpn::H1,
        };
        let rules = Rules { alpn, tickets };
        let acceptors = ArcSwap::from_pointee(Acceptors::build(&rules, listener, config)?);
        Ok(TlsFront { rules, acceptors })
    }

    /// The acceptor for a client that reached `vip` (the local address of its socket).
    pub fn acceptor(&self, vip: SocketAddr) -> SslAcceptor {
        let acceptors = self.acceptors.load();
        acceptors
            .by_vip
            .get(&canonical(vip))
            .unwrap_or(&acceptors.default)
            .clone()
    }

    /// Loads everything again and swaps it in; live connections keep what they have, tickets stay
    /// good for certificates that did not change. ALPN stays as it was: a change of `h2` or `mode`
    /// is another listener.
    ///
    /// Errors: as [`TlsFront::new`]; the old certificates then go on being served.
    pub fn reload(&self, listener: &Listener, config: &Config) -> Result<(), Fault> {
        let acceptors = Acceptors::build(&self.rules, listener, config)?;
        self.acceptors.store(Arc::new(acceptors));
        Ok(())
    }
}

/// One acceptor for each default certificate; all know every name.
struct Acceptors {
    default: SslAcceptor,
    by_vip: HashMap<SocketAddr, SslAcceptor>,
}

impl Acceptors {
    fn build(rules: &Rules, listener: &Listener, config: &Config) -> Result<Acceptors, Fault> {
        let unknown = |certificate: &str| Fault::Unknown {
            listener: listener.name.clone(),
            certificate: certificate.to_owned(),
        };
        let tls = listener.tls.as_ref().ok_or_else(|| unknown(""))?;
        let loaded = load(tls, config, unknown)?;
        let names = Arc::new(names(rules, tls, &loaded)?);
        let acceptor = |word: &str| -> Result<SslAcceptor, Fault> {
            let shown = loaded.get(word).ok_or_else(|| unknown(word))?;
            acceptor(rules, shown, names.clone(), tls.strict_sni).map_err(|e| refused(word, &e))
        };
        let first = tls.certificates.first().ok_or_else(|| unknown(""))?;
        let by_vip = tls.by_vip.iter();
        Ok(Acceptors {
            default: acceptor(first)?,
            by_vip: by_vip
                .map(|(vip, word)| Ok((canonical(*vip), acceptor(word)?)))
                .collect::<Result<_, Fault>>()?,
        })
    }
}

type ByWord = BTreeMap<String, Loaded>;

fn load(
    tls: &ListenerTls,
    config: &Config,
    unknown: impl Fn(&str) -> Fault,
) -> Result<ByWord, Fault> {
    let words = tls.certificates.iter().chain(tls.by_vip.values());
    words
        .map(|word| {
            let files = config.certificates.get(word).ok_or_else(|| unknown(word))?;
            Ok((word.clone(), Loaded::open(files, &config.dir)?))
        })
        .collect()
}

/// Name → context. Where two certificates cover a name the one listed first has it.
fn names(rules: &Rules, tls: &ListenerTls, loaded: &ByWord) -> Result<Names, Fault> {
    let mut names = HashMap::new();
    for word in tls.certificates.iter().chain(tls.by_vip.values()) {
        let Some(shown) = loaded.get(word) else {
            continue;
        };
        let context = rules.context(shown).map_err(|e| refused(word, &e))?;
        let context = context.build().into_context();
        for name in &shown.names {
            names.entry(name.clone()).or_insert_with(|| context.clone());
        }
    }
    Ok(Names(names))
}

/// Names that certificates cover, as they write them: `push.example`, `*.example`.
struct Names(HashMap<String, SslContext>);

impl Names {
    /// The context for `name`: exact, else the wildcard one label up.
    fn find(&self, name: &str) -> Option<&SslContext> {
        self.0.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.0.get(&format!("*.{parent}"))
        })
    }
}

/// An acceptor that shows `shown` unless the client's ClientHello names something better. The choice
/// is made before a session is looked up, so that it decides which tickets are good, too.
fn acceptor(
    rules: &Rules,
    shown: &Loaded,
    names: Arc<Names>,
    strict: bool,
) -> Result<SslAcceptor, ErrorStack> {
    let mut context = rules.context(shown)?;
    context.set_client_hello_callback(move |ssl: &mut SslRef, alert: &mut SslAlert| {
        let Some(asked) = server_name::asked(ssl) else {
            return Ok(ClientHelloResponse::SUCCESS);
        };
        match names.find(&asked) {
            Some(context) => ssl.set_ssl_context(context)?,
            None if strict => {
                *alert = SslAlert::UNRECOGNIZED_NAME;
                return Err(ErrorStack::get());
            }
            None => {}
        }
        Ok(ClientHelloResponse::SUCCESS)
    });
    Ok(context.build())
}

/// `::ffff:10.0.0.1` and `10.0.0.1` are the same VIP.
fn canonical(vip: SocketAddr) -> SocketAddr {
    SocketAddr::new(vip.ip().to_canonical(), vip.port())
}

fn refused(certificate: &str, e: &ErrorStack) -> Fault {
    Fault::Refused {
        certificate: certificate.to_owned(),
        why: e.to_string(),
    }
}
