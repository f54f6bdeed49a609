//! A node that speaks TLS, and clients that inspect the handshake.
//!
//! In: certificates of [`Certs`]. Out: answers, the certificate of the handshake.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use openssl::ssl::{
    Ssl, SslAcceptor, SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslVerifyMode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

use crate::certs::Certs;
use crate::client::Dial;
use crate::deadline;

/// A running node; dropping it ends it.
pub struct TlsNode(tokio::task::JoinHandle<()>);

impl Drop for TlsNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Correctly.
    Good,
    /// Sends a plain answer before the handshake.
    Injects,
    /// Refuses clients without a certificate of its own authority.
    Asks,
}

/// Answers each connection's requests with `over TLS`.
pub async fn start(at: SocketAddr, certs: &Certs, word: &str, manner: Manner) -> TlsNode {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("TLS");
    let file = |end: &str| certs.dir().join(format!("{word}.{end}"));
    let key = builder.set_private_key_file(file("key"), SslFiletype::PEM);
    let chain = builder.set_certificate_chain_file(file("pem"));
    key.and(chain).expect("certificate files");
    if manner == Manner::Asks {
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        builder.set_ca_file(certs.ca_file()).expect("the authority");
    }
    let acceptor = Arc::new(builder.build());
    let listener = loop {
        // The node of the previous case may still be closing.
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    TlsNode(tokio::spawn(async move {
        loop {
            let Ok((mut tcp, _)) = listener.accept().await else {
                return;
            };
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if manner == Manner::Injects {
                    let _ = tcp.write_all(ANSWER).await;
                }
                let ssl = Ssl::new(acceptor.context()).expect("TLS");
                let mut stream = SslStream::new(ssl, tcp).expect("TLS");
                if Pin::new(&mut stream).accept().await.is_err() {
                    return;
                }
                let mut head = [0; 4096];
                while matches!(stream.read(&mut head).await, Ok(n) if n > 0) {
                    let _ = stream.write_all(ANSWER).await;
                }
            });
        }
    }))
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nover TLS\n";

/// Returns the certificate that a handshake shows, in DER.
pub async fn shown(dial: &Dial) -> Vec<u8> {
    let stream = connect(dial, None).await.expect("a handshake");
    let leaf = stream.ssl().peer_certificate().expect("a certificate");
    leaf.to_der().expect("DER")
}

/// As [`shown`], for a client that knows only these signature algorithms.
pub async fn shown_with(dial: &Dial, algorithms: &str) -> Vec<u8> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("TLS");
    connector.set_verify(SslVerifyMode::NONE);
    connector.set_sigalgs_list(algorithms).expect("algorithms");
    let stream = over(dial, connector).await.expect("a handshake");
    let leaf = stream.ssl().peer_certificate().expect("a certificate");
    leaf.to_der().expect("DER")
}

/// Returns the status of a GET by a client that shows a certificate and sends headers of ours; `None`: the
/// client was refused.
pub async fn get_as(dial: &Dial, who: Option<(&Certs, &str)>) -> Option<u16> {
    let mut stream = connect(dial, who).await.ok()?;
    let request = format!(
        "GET /hello HTTP/1.1\r\nHost: {}\r\nX-Client-Cert-Subject: CN=forged\r\n\
         X_Client_Cert_Verify: forged\r\nConnection: close\r\n\r\n",
        dial.host
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    // With TLS 1.3 the refusal arrives after the client's own handshake is complete.
    let _ = deadline("an answer", stream.read_to_string(&mut answer)).await;
    answer.split(' ').nth(1)?.parse().ok()
}

async fn connect(
    dial: &Dial,
    who: Option<(&Certs, &str)>,
) -> Result<SslStream<tokio::net::TcpStream>, openssl::ssl::Error> {
    let mut connector = SslConnector::builder(SslMethod::tls_client())?;
    connector.set_verify(SslVerifyMode::NONE);
    if let Some((certs, word)) = who {
        let file = |end: &str| certs.dir().join(format!("{word}.{end}"));
        connector.set_certificate_chain_file(file("pem"))?;
        connector.set_private_key_file(file("key"), SslFiletype::PEM)?;
    }
    over(dial, connector).await
}

async fn over(
    dial: &Dial,
    connector: SslConnectorBuilder,
) -> Result<SslStream<tokio::net::TcpStream>, openssl::ssl::Error> {
    let ssl = connector.build().configure()?.into_ssl(&dial.host)?;
    let mut stream = SslStream::new(ssl, dial.tcp().await)?;
    deadline("a handshake", Pin::new(&mut stream).connect()).await?;
    Ok(stream)
}
