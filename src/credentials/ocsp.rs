//! Keeps the OCSP response stapled to a handshake: read from a file or fetched from the responder.
//!
//! In: a certificate with its issuer. Out: a response that says *good* and is valid now, or nothing,
//! because a stale staple is worse than no staple.
//! Source: RFC 6960 §2, §4.2; RFC 6961; RFC 8446 §4.4.2.1.

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

use super::files;
use super::{Certificate, Ocsp, TlsError};

/// Largest difference between the clocks of responder and edge, in seconds.
const SKEW: i64 = 300;
/// Longest pause between two requests to a responder that answers, in seconds. A response that
/// is valid for a shorter time is fetched again after half of that time.
const ASK_EVERY: i64 = 3600;
/// Pause after the first failed request, in seconds; doubled after each further one.
const RETRY: i64 = 2;
/// Longest pause after failed requests, in seconds.
const MAX_RETRY: i64 = 600;

/// The response of one certificate, and how to fetch the next one. Times are seconds since 1970.
pub struct Staple {
    held: ArcSwapOption<Held>,
    /// Present if the response is fetched from the responder.
    pub asks: Option<Asks>,
    from_file: bool,
    leaf: X509,
    issuer: Option<X509>,
    /// When the next request is due.
    due: AtomicI64,
    /// Failed requests since the last good response.
    failures: AtomicU32,
}

/// A response that says *good*.
pub struct Held {
    /// The response as it is sent, DER.
    pub der: Vec<u8>,
    /// When the response expires.
    until: i64,
}

/// What is sent to the responder, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// The responder's URL, from the certificate.
    pub url: String,
    /// The request, DER.
    pub request: Vec<u8>,
}

/// What a response says about the certificate; its signature and time are checked.
enum Says {
    /// The certificate is good until this time.
    Good(i64),
    /// The certificate is revoked.
    Revoked,
    /// Nothing: it has expired, or its time has not begun.
    OutOfTime,
}

impl Staple {
    /// Builds the staple that `certificate` asks for. `now` is in seconds since 1970.
    ///
    /// Errors: the chain has no issuer, the certificate names no responder, or the response in the file is not
    /// about this certificate. One that is out of time is left out: see [`Staple::is_over`].
    pub(super) fn open(
        certificate: &Certificate,
        dir: &Path,
        (leaf, issuers): (&X509Ref, &[X509]),
        now: i64,
    ) -> Result<Staple, TlsError> {
        let mut staple = Staple {
            held: ArcSwapOption::empty(),
            asks: None,
            from_file: matches!(certificate.ocsp, Ocsp::File(_)),
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
                let fault = |why: String| TlsError::Ocsp {
                    why: format!("{}: {why}", path.display()),
                };
                if !matches!(
                    staple.judge(&response, now).map_err(fault)?,
                    Says::OutOfTime
                ) {
                    staple.take(response, now).map_err(fault)?;
                }
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
        let request = request().map_err(|_| fault("the chain has no issuer, which OCSP needs"))?;
        Ok(Asks { url, request })
    }

    /// Returns the response to send at `now`; never an expired one.
    pub fn response(&self, now: i64) -> Option<Arc<Held>> {
        self.held.load_full().filter(|held| now < held.until)
    }

    /// Whether the file had a response that is not valid at `now`: nothing is stapled.
    pub fn is_over(&self, now: i64) -> bool {
        self.from_file && self.response(now).is_none()
    }

    /// Whether a request to the responder is due at `now`. Pass its answer to [`Staple::answered`].
    pub fn is_due(&self, now: i64) -> bool {
        self.asks.is_some() && self.due.load(Ordering::Relaxed) <= now
    }

    /// Postpones the next request while one is running.
    pub fn asking(&self, now: i64) {
        self.due.store(now + ASK_EVERY, Ordering::Relaxed);
    }

    /// Takes the responder's answer, or the error of the request, and sets the time of the next request.
    ///
    /// Errors: as [`Staple::take`], or the error in `answer`.
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

    /// Makes `der` the response to send, if it is valid at `now`.
    ///
    /// Errors: what is wrong with `der`. The old response stays, unless the certificate is revoked.
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
            Says::OutOfTime => Err("the OCSP response is not valid yet or has expired".into()),
        }
    }

    /// Takes over the response of `old` if it is about the same leaf, and the file has none. The responder is
    /// asked again all the same, because a reload orders a fresh check.
    pub(crate) fn inherit(&self, old: &Staple) {
        let lacks = self.asks.is_some() || (self.from_file && self.held.load().is_none());
        if lacks && self.leaf == old.leaf {
            self.held.store(old.held.load_full());
        }
    }

    fn id(&self) -> Option<OcspCertId> {
        let issuer = self.issuer.as_ref()?;
        OcspCertId::from_cert(MessageDigest::sha1(), &self.leaf, issuer).ok()
    }

    /// Checks that the leaf's issuer or its delegate signed `der` and that `der` is valid at `now`.
    /// Returns what it says about the leaf.
    fn judge(&self, der: &[u8], now: i64) -> Result<Says, String> {
        let response = OcspResponse::from_der(der).map_err(|_| "expected an OCSP response")?;
        if response.status() != OcspResponseStatus::SUCCESSFUL {
            return Err("the OCSP responder refused to answer".into());
        }
        let basic = response.basic().map_err(|_| "the OCSP response is empty")?;
        let issuer = self.issuer.as_ref().ok_or("the chain has no issuer")?;
        let signed = || {
            let mut trusted = X509StoreBuilder::new()?;
            trusted.add_cert(issuer.clone())?;
            // An intermediate is trusted without its root.
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
        // Without nextUpdate there is always newer information (RFC 6960 §2.4): the edge asks each hour.
        let until = status.next_update().map_or(Some(i64::MAX), unix);
        let until = until.ok_or("the OCSP response has no time")?;
        if from > now + SKEW || until <= now {
            return Ok(Says::OutOfTime);
        }
        match status.status {
            OcspCertStatus::GOOD => Ok(Says::Good(until)),
            OcspCertStatus::REVOKED => Ok(Says::Revoked),
            _ => Err("the OCSP responder does not know the certificate".into()),
        }
    }
}

/// Seconds until the next request, after `failures` in a row; the current response is valid for
/// `left` more seconds.
fn pause(failures: u32, left: i64) -> i64 {
    match failures {
        0 => (left / 2).clamp(RETRY, ASK_EVERY),
        n => (RETRY << (n - 1).min(16)).min(MAX_RETRY),
    }
}

/// Converts a time in an OCSP response to seconds since 1970.
fn unix(time: &Asn1GeneralizedTimeRef) -> Option<i64> {
    let epoch = Asn1Time::from_unix(0).ok()?;
    let (mut days, mut seconds) = (0, 0);
    // SAFETY: both times are live and both numbers writable. ASN1_GENERALIZEDTIME and ASN1_TIME name
    // one structure (`asn1.h`); rust-openssl wraps calls for the second name only.
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

/// Deadline of one request to a responder.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes; real answers are below 4 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends a request to the responder by POST (RFC 6960 §A.1) and returns the body of its answer.
///
/// Errors: a text that says what failed.
pub async fn ask(asks: &Asks) -> Result<Vec<u8>, String> {
    let asked = tokio::time::timeout(ASK_TIMEOUT, post(asks)).await;
    asked.map_err(|_| format!("the OCSP responder did not answer within {ASK_TIMEOUT:?}"))?
}

async fn post(asks: &Asks) -> Result<Vec<u8>, String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    let url: Uri = asks.url.parse().map_err(|e| said(&e))?;
    let host = url.host().ok_or("the OCSP responder's URL has no host")?;
    let at = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(at).await.map_err(|e| said(&e))?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| said(&e))?;
    // The task ends with the answer, when this function drops the sender.
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
        return Err(format!("the OCSP responder answered {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER);
    let body = body.collect().await.map_err(|e| said(&e))?;
    Ok(body.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a response in a file that is over stops neither a start nor a reload; nothing is stapled. Source:
    /// `tests/ocsp/make.sh`. Fails if its time is an error as its signature is.
    #[test]
    fn a_response_that_is_over_is_left_out() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ocsp");
        let pem = std::fs::read(dir.join("over.pem")).expect("a chain");
        let mut chain = X509::stack_from_pem(&pem).expect("PEM");
        let issuers = chain.split_off(1);
        let open = |file: &str, now| {
            let files = Certificate {
                ocsp: Ocsp::File(file.into()),
                ..Certificate::default()
            };
            Staple::open(&files, &dir, (&chain[0], &issuers), now)
        };
        let now = super::super::unix_now();
        let staple = open("over.der", now).unwrap_or_else(|e| panic!("{e}"));
        assert!(staple.is_over(now) && staple.response(now).is_none());
        let fault = open("over.pem", now).err().expect("a fault").to_string();
        assert!(fault.contains("expected an OCSP response"), "{fault}");
    }

    /// Aim: a good response is fetched again before it expires; a failing responder gets few requests.
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
