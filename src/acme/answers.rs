//! Holds the answers to the open challenges, where each listener finds them without a lock or a file.
//!
//! In: the open challenges of the state folders. Out: the answer to a request or a ClientHello of an authority.
//! While no challenge is open, which is nearly always, a look costs one load.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use openssl::ssl::SslContext;

use super::WELL_KNOWN;
use super::proof::{PROTOCOL, Proof};

static OPEN: LazyLock<ArcSwap<Answers>> = LazyLock::new(ArcSwap::default);

#[derive(Default)]
struct Answers {
    by_token: HashMap<String, String>,
    by_name: HashMap<String, SslContext>,
}

impl Answers {
    fn to(open: &[Proof]) -> Answers {
        let mut all = Answers::default();
        for proof in open {
            let (token, text) = (proof.token.clone(), proof.authorization.clone());
            all.by_token.insert(token, text);
            match proof.context() {
                Ok(context) => drop(all.by_name.insert(proof.name.clone(), context)),
                Err(e) => log::error!("ACME: OpenSSL makes no certificate for a challenge: {e}"),
            }
        }
        all
    }

    fn http(&self, path: &str) -> Option<String> {
        self.by_token.get(path.strip_prefix(WELL_KNOWN)?).cloned()
    }

    fn tls(&self, name: Option<&str>, offered: Option<&[u8]>) -> Option<SslContext> {
        is_alone(offered?).then_some(())?;
        self.by_name.get(name?).cloned()
    }
}

/// Whether a client that offers these protocols speaks `acme-tls/1` and no other.
fn is_alone(offered: &[u8]) -> bool {
    let list = offered.get(2..).and_then(|list| list.split_first());
    list.is_some_and(|(length, only)| usize::from(*length) == only.len() && only == PROTOCOL)
}

/// Answers these challenges from now on, and no other.
pub fn answer_all(open: &[Proof]) {
    OPEN.store(Arc::new(Answers::to(open)));
}

/// Returns the body of the answer to a request for `path`; `None`: the request is no open challenge of this edge,
/// and goes where its route leads.
pub fn http_answer(path: &str) -> Option<String> {
    path.starts_with(WELL_KNOWN)
        .then(|| OPEN.load().http(path))
        .flatten()
}

/// Returns the context for a client that asks for `name` and offers the protocols `offered`, in the format of the
/// extension; `None`: it is not an authority that asks for an open challenge.
pub fn tls_answer(name: Option<&str>, offered: Option<&[u8]>) -> Option<SslContext> {
    is_alone(offered?)
        .then(|| OPEN.load().tls(name, offered))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: only a client that offers `acme-tls/1` alone, for an open challenge, gets the proof. Fails if a browser
    /// that knows the name gets a certificate that signs itself. Source: RFC 8737 §3.
    #[test]
    fn only_authorities_get_the_proof() {
        let open = Answers::to(&[Proof {
            token: "t0ken".into(),
            name: "proved.example".into(),
            authorization: "t0ken.mark".into(),
        }]);
        let alone = b"\x00\x0b\x0aacme-tls/1";
        let beside = b"\x00\x0e\x0aacme-tls/1\x02h2";
        let name = Some("proved.example");
        type Case<'a> = (Option<&'a str>, Option<&'a [u8]>, bool);
        let cases: &[Case<'_>] = &[
            (None, Some(alone), false),
            (Some("other.example"), Some(alone), false),
            (name, None, false),
            (name, Some(b""), false),
            (name, Some(b"\x00\x0b"), false),
            (name, Some(b"\x00\x03\x02h2"), false),
            (name, Some(beside), false),
            (name, Some(&alone[..12]), false),
            (name, Some(alone), true),
        ];
        for (name, offered, expected) in cases {
            let got = open.tls(*name, *offered).is_some();
            assert_eq!(got, *expected, "{name:?} {offered:?}");
        }
        let at = |path| open.http(path);
        assert_eq!(at("/.well-known/acme-challenge/other"), None);
        assert_eq!(at("/.well-known/acme-challenge/"), None);
        assert_eq!(at("/t0ken"), None);
        let own = at("/.well-known/acme-challenge/t0ken");
        assert_eq!(own.as_deref(), Some("t0ken.mark"));
    }
}
