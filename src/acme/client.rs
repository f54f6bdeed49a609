//! Sends requests to an authority, over the same OpenSSL as everything else.
//!
//! In: requests of the ACME client. Out: answers, of bounded size and time. Each request has a connection of its
//! own: an order makes some ten of them, every two months. Source: RFC 8555 §6.1.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::credentials::authorities_of;

/// Deadline of one request, from the look-up of the name to the last byte. Let's Encrypt answers within a second.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Deadline of a connection to one address. The next one follows: IPv6 may lead nowhere.
const CONNECT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes; a long chain has 20 KiB.
const MAX_ANSWER: usize = 1024 * 1024;
/// How the edge presents itself (RFC 8555 §6.1).
const AGENT: &str = concat!("pushgate/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// A client for one authority.
pub struct Client(SslConnector);

impl Client {
    /// Makes a client that accepts a server whose certificate an authority in `ca_file` has issued; `None`: the
    /// system's authorities.
    ///
    /// Errors: the file cannot be read.
    pub fn new(ca_file: Option<&Path>) -> Result<Client, String> {
        let authorities = ca_file.map(authorities_of).transpose();
        let authorities = authorities.map_err(|e| e.to_string())?;
        let made = || {
            let mut context = SslConnector::builder(SslMethod::tls_client())?;
            context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
            if let Some(authorities) = authorities {
                let mut store = X509StoreBuilder::new()?;
                for authority in authorities {
                    store.add_cert(authority)?;
                }
                context.set_cert_store(store.build());
            } else if let Some(file) = openssl_probe::probe().cert_file {
                // The built-in OpenSSL does not know where the system keeps its authorities.
                context.set_ca_file(file)?;
            } else {
                log::warn!(
                    "ACME: this system has no file of authorities; install ca-certificates, or set ca_file"
                );
            }
            Ok(Client(context.build()))
        };
        made().map_err(|e: ErrorStack| format!("the authorities of an ACME server: {e}"))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let connector = self.0.clone();
        Box::pin(async move {
            let sent = tokio::time::timeout(TIMEOUT, send(connector, request)).await;
            let late = |_| format!("no answer within {} s", TIMEOUT.as_secs());
            sent.map_err(late)
                .and_then(|sent| sent)
                .map_err(|why| Error::Other(why.into()))
        })
    }
}

/// Connects to the first address of `host` that answers.
///
/// Errors: what the last one said.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = tokio::net::lookup_host((host, port)).await;
    let mut last = "the name has no address".to_owned();
    for address in addresses.map_err(|e| e.to_string())? {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(e)) => last = format!("{}: {e}", address.ip()),
            Err(_) => last = format!("{}: no answer within {} s", address.ip(), CONNECT.as_secs()),
        }
    }
    Err(last)
}

/// Errors: a text that says what failed.
async fn send(
    connector: SslConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    let url = request.uri().clone();
    let host = url.host().filter(|_| url.scheme_str() == Some("https"));
    let host = host.ok_or_else(|| format!("`{url}` is not an https URL"))?;
    let host = host.trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(443);
    let named = |e: &dyn std::fmt::Display| format!("{host}:{port}: {e}");
    let tcp = connect(host, port).await.map_err(|e| named(&e))?;
    let ssl = connector.configure().and_then(|c| c.into_ssl(host));
    let mut tls = SslStream::new(ssl.map_err(|e| said(&e))?, tcp).map_err(|e| said(&e))?;
    if let Err(e) = Pin::new(&mut tls).connect().await {
        let verdict = tls.ssl().verify_result();
        return Err(match verdict.as_raw() {
            0 => named(&e),
            _ => named(&format!(
                "its certificate is refused: {}",
                verdict.error_string()
            )),
        });
    }
    let shaken = http1::handshake(TokioIo::new(tls)).await;
    let (mut sender, connection) = shaken.map_err(|e| said(&e))?;
    // The task ends with the answer, when this function drops the sender.
    tokio::spawn(connection);
    let authority = url.authority().map_or("", |a| a.as_str());
    let authority = HeaderValue::from_str(authority).map_err(|e| said(&e))?;
    let path = url.path_and_query().map_or("/", |p| p.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|e| said(&e))?;
    request.headers_mut().insert(HOST, authority);
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let answer = sender.send_request(request).await.map_err(|e| said(&e))?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|e| said(&e))?.to_bytes();
    Ok(BytesResponse {
        parts,
        body: Box::new(body),
    })
}
