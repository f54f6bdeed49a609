//! The OCSP response stapled to a handshake: read from a file or asked of the responder.
//!
//! In: a certificate with its issuer. Out: a response that says *good* and is in time, or nothing: a
//! stale staple is worse than none. Source: RFC 6960 §2, §4.2; RFC 6961; RFC 8446 §4.4.2.1.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use foreign_types::ForeignTypeRef;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use openssl::asn1::{Asn1GeneralizedTimeRef, Asn1Time};
use openssl::hash::MessageDigest;
use openssl::ocsp::{
    OcspCertId, OcspCertStatus, OcspFlag, OcspRequest, OcspResponse, OcspResponseStatus,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Ref};
use tokio::net::TcpStream;

use super::TlsError;
use super::files;
use crate::config::{Certificate, Ocsp};

/// Clocks of responder and edge may differ by this many seconds.
const SKEW: i64 = 300;
/// Longest pause between two questions to a responder that answers, in seconds. What it says for a
/// shorter time is asked again after half of that.
const ASK_EVERY: i64 = 3600;
/// Pause after a question that brought nothing good, in seconds; doubled each time.
const RETRY: i64 = 2;
/// Longest such pause, in seconds.
const MAX_RETRY: i64 = 600;

/// A response and what it takes to get the next one. Times are seconds since 1970.
pub struct Staple {
    held: ArcSwapOption<Held>,
    /// Present where the response is asked of the responder.
    pub asks: Option<Asks>,
    leaf: X509,
    issuer: Option<X509>,
    /// When the responder is asked next.
    due: AtomicI64,
    /// Questions since the last good answer.
    failures: AtomicU32,
}

/// A good response.
pub struct Held {
    /// As it is sent.
    pub der: Vec<u8>,
    /// End of its time.
    until: i64,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// The responder's URL out of the certificate.
    pub url: String,
    /// The request, DER.
    pub request: Vec<u8>,
}

/// What a response says that is signed and in time.
enum Says {
    /// Good, until then.
    Good(i64),
    /// The certificate is revoked.
    Revoked,
}

impl Staple {
    /// What `certificate` asks for, at the time `now`.
    ///
    /// Errors: no issuer in the chain, no responder in the certificate, a file whose response is
    /// not good for this certificate now.
    pub(super) fn open(
        certificate: &Certificate,
        dir: &Path,
        (leaf, issuers): (&X509Ref, &[X509]),
        now: i64,
    ) -> Result<Staple, TlsError> {
        let mut staple = Staple {
            held: ArcSwapOption::empty(),
            asks: None,
            leaf: leaf.to_owned(),
            issuer: issuers.first().cloned(),
            due: AtomicI64::new(0),
            failures: AtomicU32::new(0),
        };
        match &certificate.ocsp {
            Ocsp::Off => {}
            Ocsp::File(file) => {
                let path = dir.join(file);
                let response = files::read(&path)?;
                staple.take(response, now).map_err(|why| TlsError::Ocsp {
                    why: format!("{}: {why}", path.display()),
                })?;
            }
            Ocsp::Responder => staple.asks = Some(staple.asks_of(leaf)?),
        }
        Ok(staple)
    }

    fn asks_of(&self, leaf: &X509Ref) -> Result<Asks, TlsError> {
        let fault = |why: &str| TlsError::Ocsp {
            why: why.to_owned(),
        };
        let urls = leaf.ocsp_responders().ok();
        let urls = urls.iter().flatten();
        let mut urls = urls.map(|url| url.to_string());
        let url = urls.find(|url| url.starts_with("http://"));
        let url = url.ok_or_else(|| fault("the certificate names no OCSP responder"))?;
        let request = || {
            let mut request = OcspRequest::new()?;
            request.add_id(self.id().ok_or_else(openssl::error::ErrorStack::get)?)?;
            request.to_der()
        };
        let request = request().map_err(|_| fault("the chain has no issuer to ask about"))?;
        Ok(Asks { url, request })
    }

    /// The response to send at `now`: never one whose time is over.
    pub fn response(&self, now: i64) -> Option<Arc<Held>> {
        self.held.load_full().filter(|held| now < held.until)
    }

    /// Whether the responder is to be asked at `now`. The answer goes to [`Staple::answered`].
    pub fn is_due(&self, now: i64) -> bool {
        self.asks.is_some() && self.due.load(Ordering::Relaxed) <= now
    }

    /// Puts the next question off while one is under way.
    pub fn asking(&self, now: i64) {
        self.due.store(now + ASK_EVERY, Ordering::Relaxed);
    }

    /// Takes what the responder answered, or why it did not, and sets the time of the next question.
    ///
    /// Errors: as [`Staple::take`], or what was given.
    pub fn answered(&self, answer: Result<Vec<u8>, String>, now: i64) -> Result<(), String> {
        let taken = answer.and_then(|der| self.take(der, now));
        let failures = match &taken {
            Ok(()) => 0,
            Err(_) => self.failures.load(Ordering::Relaxed).saturating_add(1),
        };
        self.failures.store(failures, Ordering::Relaxed);
        let until = self.held.load().as_ref().map_or(now, |held| held.until);
        let pause = pause(failures, until.saturating_sub(now));
        self.due.store(now + pause, Ordering::Relaxed);
        taken
    }

    /// Takes `der` for the response to send.
    ///
    /// Errors: what is wrong with it; the old one stays, unless the certificate is revoked.
    pub fn take(&self, der: Vec<u8>, now: i64) -> Result<(), String> {
        match self.judge(&der, now)? {
            Says::Good(until) => {
                self.held.store(Some(Arc::new(Held { der, until })));
                Ok(())
            }
            Says::Revoked => {
                self.held.store(None);
                Err("the certificate is revoked".into())
            }
        }
    }

    /// Takes over what the responder said to `old` about the same leaf. It is asked again all the
    /// same: a reload is an order to look.
    pub(super) fn inherit(&self, old: &Staple) {
        if self.asks.is_some() && self.leaf == old.leaf {
            self.held.store(old.held.load_full());
        }
    }

    fn id(&self) -> Option<OcspCertId> {
        let issuer = self.issuer.as_ref()?;
        OcspCertId::from_cert(MessageDigest::sha1(), &self.leaf, issuer).ok()
    }

    /// What `der` says about the leaf, signed by its issuer or the issuer's delegate, at `now`.
    fn judge(&self, der: &[u8], now: i64) -> Result<Says, String> {
        let response = OcspResponse::from_der(der).map_err(|_| "expected an OCSP response")?;
        if response.status() != OcspResponseStatus::SUCCESSFUL {
            return Err("the responder refused to answer".into());
        }
        let basic = response.basic().map_err(|_| "the OCSP response is empty")?;
        let issuer = self.issuer.as_ref().ok_or("the chain has no issuer")?;
        let signed = || {
            let mut trusted = X509StoreBuilder::new()?;
            trusted.add_cert(issuer.clone())?;
            // An intermediate is trusted here as it stands; its own root need not be known.
            trusted.set_flags(openssl::x509::verify::X509VerifyFlags::PARTIAL_CHAIN)?;
            let mut untrusted = Stack::new()?;
            untrusted.push(issuer.clone())?;
            basic.verify(&untrusted, &trusted.build(), OcspFlag::empty())
        };
        signed().map_err(|_| "the OCSP response is not signed by the certificate's issuer")?;
        let id = self.id().ok_or("the chain has no issuer")?;
        let status = basic
            .find_status(&id)
            .ok_or("the OCSP response is about another certificate")?;
        let from = unix(status.this_update).ok_or("the OCSP response has no time")?;
        // Without an end newer words are there at any time (RFC 6960 §2.4): it is asked for each hour.
        let until = status.next_update().map_or(Some(i64::MAX), unix);
        let until = until.ok_or("the OCSP response has no time")?;
        if from > now + SKEW || until <= now {
            return Err("the OCSP response is out of its time".into());
        }
        match status.status {
            OcspCertStatus::GOOD => Ok(Says::Good(until)),
            OcspCertStatus::REVOKED => Ok(Says::Revoked),
            _ => Err("the responder does not know the certificate".into()),
        }
    }
}

/// Seconds until the next question, after `failures` in a row, with a response good for `left` more.
fn pause(failures: u32, left: i64) -> i64 {
    match failures {
        0 => (left / 2).clamp(RETRY, ASK_EVERY),
        n => (RETRY << (n - 1).min(16)).min(MAX_RETRY),
    }
}

/// Seconds since 1970 of a time in an OCSP response.
fn unix(time: &Asn1GeneralizedTimeRef) -> Option<i64> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let (mut days, mut seconds) = (0, 0);
    // SAFETY: both times are live, both numbers writable, and ASN1_GENERALIZEDTIME and ASN1_TIME are
    // names of one structure (`asn1.h`), of which rust-openssl wraps the calls of the second only.
    let done = unsafe {
        openssl_sys::ASN1_TIME_diff(
            &mut days,
            &mut seconds,
            epoch.as_ptr(),
            time.as_ptr().cast(),
        )
    };
    (done == 1).then(|| i64::from(days) * 86_400 + i64::from(seconds))
}

/// Deadline of one question.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer; real ones are below 4 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// Asks a responder by POST (RFC 6960 §A.1).
///
/// Errors: what failed, in words.
pub async fn ask(asks: &Asks) -> Result<Vec<u8>, String> {
    let asked = tokio::time::timeout(ASK_TIMEOUT, post(asks)).await;
    asked.map_err(|_| format!("no answer within {ASK_TIMEOUT:?}"))?
}

async fn post(asks: &Asks) -> Result<Vec<u8>, String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    let url: Uri = asks.url.parse().map_err(|e| said(&e))?;
    let host = url.host().ok_or("the responder's URL has no host")?;
    let at = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(at).await.map_err(|e| said(&e))?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| said(&e))?;
    // Ends with the answer: the sender is dropped then.
    tokio::spawn(connection);
    let request = Request::post(url.path_and_query().map_or("/", |p| p.as_str()))
        .header(
            http::header::HOST,
            url.authority().map_or("", |a| a.as_str()),
        )
        .header(http::header::CONTENT_TYPE, "application/ocsp-request")
        .body(Full::new(Bytes::from(asks.request.clone())))
        .map_err(|e| said(&e))?;
    let answer = send.send_request(request).await.map_err(|e| said(&e))?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("answered {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER);
    let body = body.collect().await.map_err(|e| said(&e))?;
    Ok(body.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::pause;

    /// Aim: a good answer is asked for again before it ends, a bad responder is not hammered.
    #[test]
    fn pauses() {
        for (failures, left, expected) in [
            (1, 0, 2),
            (2, 0, 4),
            (9, 0, 512),
            (10, 0, 600),
            (u32::MAX, 0, 600),
            (0, 0, 2),
            (0, 60, 30),
            (0, 7 * 86_400, 3600),
            (0, i64::MAX, 3600),
        ] {
            assert_eq!(pause(failures, left), expected, "{failures} {left}");
        }
    }
}
