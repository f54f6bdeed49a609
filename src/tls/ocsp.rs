//! The OCSP response stapled to a handshake: read from a file or asked of the responder.
//!
//! In: a certificate with its issuer. Out: a response that says *good* and is in time, or nothing: a
//! stale staple is worse than none. Source: RFC 6960 §2, §4.2; RFC 6961; RFC 8446 §4.4.2.1.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use openssl::hash::MessageDigest;
use openssl::ocsp::{
    OcspCertId, OcspCertStatus, OcspFlag, OcspRequest, OcspResponse, OcspResponseStatus,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Ref};
use tokio::net::TcpStream;

use super::Fault;
use super::files;
use crate::config::{Certificate, Ocsp};

/// Clocks of responder and edge may differ by this much.
const SKEW_SECONDS: u32 = 300;

/// A response and what it takes to get the next one.
pub struct Staple {
    response: ArcSwapOption<Vec<u8>>,
    /// Present where the response is asked of the responder.
    pub asks: Option<Asks>,
    leaf: X509,
    issuer: Option<X509>,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// The responder's URL out of the certificate.
    pub url: String,
    /// The request, DER.
    pub request: Vec<u8>,
}

impl Staple {
    /// What `certificate` asks for.
    ///
    /// Errors: no issuer in the chain, no responder in the certificate, a file whose response is
    /// not good for this certificate now.
    pub(super) fn open(
        certificate: &Certificate,
        dir: &Path,
        leaf: &X509Ref,
        issuers: &[X509],
    ) -> Result<Staple, Fault> {
        let mut staple = Staple {
            response: ArcSwapOption::empty(),
            asks: None,
            leaf: leaf.to_owned(),
            issuer: issuers.first().cloned(),
        };
        match &certificate.ocsp {
            Ocsp::Off => {}
            Ocsp::File(file) => {
                let path = dir.join(file);
                let response = files::read(&path)?;
                staple.take(response).map_err(|why| Fault::Ocsp {
                    why: format!("{}: {why}", path.display()),
                })?;
            }
            Ocsp::Responder => staple.asks = Some(staple.asks_of(leaf)?),
        }
        Ok(staple)
    }

    fn asks_of(&self, leaf: &X509Ref) -> Result<Asks, Fault> {
        let fault = |why: &str| Fault::Ocsp {
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

    /// The response to send.
    pub fn response(&self) -> Option<Arc<Vec<u8>>> {
        self.response.load_full()
    }

    /// Drops a response that is no longer good; called by the watch, because judging costs more than
    /// a handshake should pay.
    pub fn expire(&self) {
        if self.response().is_some_and(|der| self.judge(&der).is_err()) {
            self.response.store(None);
        }
    }

    /// Takes `response` for the one to send.
    ///
    /// Errors: what is wrong with it; the old one stays.
    pub fn take(&self, response: Vec<u8>) -> Result<(), String> {
        self.judge(&response)?;
        self.response.store(Some(Arc::new(response)));
        Ok(())
    }

    /// Takes over what the responder said to `old` about the same leaf.
    pub(super) fn inherit(&self, old: &Staple, same: bool) {
        if same && self.asks.is_some() {
            self.response.store(old.response.load_full());
        }
    }

    fn id(&self) -> Option<OcspCertId> {
        let issuer = self.issuer.as_ref()?;
        OcspCertId::from_cert(MessageDigest::sha1(), &self.leaf, issuer).ok()
    }

    /// Whether `der` says that the leaf is good, signed by its issuer or its delegate, now.
    fn judge(&self, der: &[u8]) -> Result<(), String> {
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
        status
            .check_validity(SKEW_SECONDS, None)
            .map_err(|_| "the OCSP response is out of its time")?;
        match status.status {
            OcspCertStatus::GOOD => Ok(()),
            OcspCertStatus::REVOKED => Err("the certificate is revoked".into()),
            _ => Err("the responder does not know the certificate".into()),
        }
    }
}

/// Period between two questions to a responder that answers.
pub const ASK_EVERY: Duration = Duration::from_secs(3600);
/// Pause after a responder that did not.
pub const RETRY_EVERY: Duration = Duration::from_secs(60);
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
