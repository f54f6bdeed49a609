//! Stapled OCSP responses: from a responder (`openssl ocsp`, started here on loopback) and from a file.
//!
//! In: an index of good and revoked certificates. Out: the response that a client gets stapled. Source: RFC
//! 6960 §2, §4.2; RFC 6066 §8.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use openssl::ocsp::{OcspResponse, OcspResponseStatus};
use openssl::ssl::{Ssl, SslContext, SslMethod, StatusType};
use openssl::x509::X509;
use pushgate::config::{Certificate, Ocsp};
use pushgate::credentials::Loaded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::certs::Certs;
use crate::client::Dial;
use crate::deadline;
use crate::edge::Edge;
use crate::vip::Block;

/// A responder; dropping it ends the process.
struct Responder {
    child: Child,
    port: u16,
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Responder {
    /// Starts a responder for `certs` on `port`, 0 for any free port; it answers from `index`.
    fn start(certs: &Certs, index: &Path, port: u16) -> Responder {
        let mut child = signer(certs, index)
            .args(["-port", &port.to_string(), "-ignore_err"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed (`make test` installs it)");
        let stdout = child.stdout.take().expect("a pipe was asked for");
        // Its first line: `ACCEPT [::]:43389 PID=21786`
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        read.expect("the responder says where it is");
        let port = line.split(" PID").next().and_then(|l| l.rsplit(':').next());
        let port = port.and_then(|p| p.trim().parse().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
        Responder { child, port }
    }
}

/// `openssl ocsp` that answers for `certs` from `index`; its responses are valid for an hour.
fn signer(certs: &Certs, index: &Path) -> Command {
    let mut command = Command::new("openssl");
    let dir = certs.dir();
    command.arg("ocsp").arg("-index").arg(index);
    command.arg("-CA").arg(dir.join("ca.pem"));
    command.arg("-rsigner").arg(dir.join("ca.pem"));
    command.arg("-rkey").arg(dir.join("ca.key"));
    command.args(["-nmin", "60"]).stdin(Stdio::null());
    command
}

/// Writes an index in which the leaf `word` is good or revoked; further calls add to it.
fn enter(certs: &Certs, index: &Path, word: &str, revoked: bool) {
    let pem = std::fs::read(certs.dir().join(format!("{word}.pem"))).expect("a leaf of the test");
    let leaf = X509::from_pem(&pem).expect("PEM");
    let serial = leaf.serial_number().to_bn().and_then(|n| n.to_hex_str());
    let serial = serial.expect("a serial number");
    let (status, when) = if revoked {
        ("R", "250101000000Z")
    } else {
        ("V", "")
    };
    let line = format!("{status}\t491231235959Z\t{when}\t{serial}\tunknown\t/CN={word}\n");
    let mut text = std::fs::read_to_string(index).unwrap_or_default();
    text += &line;
    std::fs::write(index, text).expect("write the index");
}

/// The response that a client gets stapled when it asks for `name`.
async fn stapled(dial: &Dial, name: &str) -> Option<Vec<u8>> {
    let context = SslContext::builder(SslMethod::tls_client()).expect("a context");
    let mut ssl = Ssl::new(&context.build()).expect("TLS");
    ssl.set_hostname(name).expect("a name");
    ssl.set_status_type(StatusType::OCSP).expect("a request");
    let mut stream = tokio_openssl::SslStream::new(ssl, dial.tcp().await).expect("a stream");
    let shaken = deadline("a handshake", Pin::new(&mut stream).connect()).await;
    shaken.expect("a handshake");
    stream.ssl().ocsp_status().map(<[u8]>::to_vec)
}

/// Polls until a response is stapled, or until none is.
async fn wait_stapled(what: &str, dial: &Dial, name: &str, wanted: bool) {
    deadline(what, async {
        while stapled(dial, name).await.is_some() != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// An HTTP server that answers `200` without an OCSP response.
async fn babbler() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

fn yaml(certs: &Certs, words: &[&str]) -> String {
    let dir = certs.dir().display();
    let blocks: String = words
        .iter()
        .map(|w| {
            format!("  {w}: {{ chain: {dir}/{w}.pem, key: {dir}/{w}.key, ocsp: responder }}\n")
        })
        .collect();
    format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n{blocks}\
         listeners:\n  - name: push\n    bind: [200.0.0.10:443]\n    mode: http\n    to: n1\n    \
         tls: {{ certificates: [{}] }}\n",
        words.join(", ")
    )
}

/// Aim: a good answer of the responder is stapled, and stays through a reload while the responder is away.
/// Once the responder reports *revoked*, nothing is stapled. Garbage is never stapled. The edge serves
/// throughout. Fails without `inherit` in `Plan::new`, without the retry, or if a revoked certificate keeps
/// its staple.
#[tokio::test(flavor = "multi_thread")]
async fn a_responder_is_asked_and_believed() {
    let (block, certs) = (Block::claim(), Certs::new());
    let (good, bad) = (certs.dir().join("good"), certs.dir().join("bad"));
    std::fs::write(&good, "").expect("write");
    // The certificate names its responder: find the port first, and let the responder read the index later.
    let port = Responder::start(&certs, &good, 0).port;
    certs.leaf_of_responder("a", &["a.example"], &format!("http://127.0.0.1:{port}/"));
    let babbler = format!("http://127.0.0.1:{}/", babbler().await);
    certs.leaf_of_responder("b", &["b.example"], &babbler);
    enter(&certs, &good, "a", false);
    enter(&certs, &bad, "a", true);
    let edge = Edge::start(&block, &yaml(&certs, &["a", "b"])).await;
    let dial = Dial::plain(block.at("200.0.0.10:443"));
    edge.wait_log("certificate a: http://127.0.0.1:").await;
    assert_eq!(stapled(&dial, "a.example").await, None, "nobody answered");
    let responder = Responder::start(&certs, &good, port);
    wait_stapled("a staple", &dial, "a.example", true).await;
    let der = stapled(&dial, "a.example").await.expect("a staple");
    let response = OcspResponse::from_der(&der).expect("a response");
    assert_eq!(response.status(), OcspResponseStatus::SUCCESSFUL);
    assert_eq!(
        stapled(&dial, "b.example").await,
        None,
        "garbage is no staple"
    );
    edge.wait_log("expected an OCSP response").await;
    let told = edge.metrics().await;
    let count = |word: &str, of: &str| {
        let name =
            format!("pushgate_ocsp_responses_total{{certificate=\"{of}\",result=\"{word}\"}}");
        told.get(&name).copied().unwrap_or_default()
    };
    assert!(count("good", "a") >= 1.0 && count("bad", "b") >= 1.0);
    assert_eq!(count("good", "b"), 0.0);
    drop(responder);
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    assert!(
        stapled(&dial, "a.example").await.is_some(),
        "a reload keeps it"
    );
    let _responder = Responder::start(&certs, &bad, port);
    wait_stapled("the end of the staple", &dial, "a.example", false).await;
    edge.wait_log("the certificate is revoked").await;
}

/// A response about the leaf `word` as a file, signed by `signer` from `index`.
fn response(certs: &Certs, signer: &Certs, index: &Path, word: &str) -> PathBuf {
    let file = certs.dir().join(format!("{word}.der"));
    let request = certs.dir().join(format!("{word}.request"));
    let mut ask = Command::new("openssl");
    ask.arg("ocsp")
        .arg("-issuer")
        .arg(certs.dir().join("ca.pem"));
    ask.arg("-cert")
        .arg(certs.dir().join(format!("{word}.pem")));
    let asked = ask
        .arg("-reqout")
        .arg(&request)
        .stdin(Stdio::null())
        .output();
    assert!(asked.is_ok_and(|o| o.status.success()), "a request");
    let mut answer = self::signer(signer, index);
    let answered = answer
        .arg("-reqin")
        .arg(&request)
        .arg("-respout")
        .arg(&file)
        .output();
    assert!(answered.is_ok_and(|o| o.status.success()), "a response");
    file
}

/// Aim: a response from a file is sent until it expires and never after. A response that is revoked, for
/// another certificate, by another signer, or no response at all is refused by name. Fails without any one of
/// the steps of `judge`, or if `response` ignores the time.
#[test]
fn a_file_is_stapled_while_it_is_good() {
    let (certs, strangers) = (Certs::new(), Certs::new());
    let index = certs.dir().join("index");
    for (word, revoked) in [("good", false), ("other", false), ("gone", true)] {
        certs.leaf(word, &["a.example"], crate::certs::Key::Ecdsa);
        enter(&certs, &index, word, revoked);
    }
    let open = |word: &str, file: &Path| {
        let files = Certificate {
            chain: Some(format!("{word}.pem").into()),
            key: Some(format!("{word}.key").into()),
            ocsp: Ocsp::File(file.to_owned()),
            ..Certificate::default()
        };
        Loaded::open(&files, certs.dir()).map_err(|fault| fault.to_string())
    };
    let file = response(&certs, &certs, &index, "good");
    let der = std::fs::read(&file).expect("the response");
    let loaded = open("good", &file).unwrap_or_else(|e| panic!("{e}"));
    let now = pushgate::credentials::unix_now();
    for (seconds, sent) in [(0, true), (59 * 60, true), (61 * 60, false)] {
        let held = loaded.staple.response(now + seconds);
        assert_eq!(held.is_some(), sent, "after {seconds} s");
        assert!(held.is_none_or(|held| held.der == der));
        assert_eq!(loaded.staple.take(der.clone(), now + seconds).is_ok(), sent);
    }
    let early = loaded.staple.take(der, now - 600);
    assert!(early.is_err_and(|e| e.contains("not valid yet or has expired")));
    assert!(!loaded.staple.is_over(now) && loaded.staple.is_over(now + 61 * 60));
    let gone = response(&certs, &certs, &index, "gone");
    let forged = response(&certs, &strangers, &index, "other");
    let garbage = certs.dir().join("garbage");
    std::fs::write(&garbage, "hello").expect("write");
    for (word, file, expected) in [
        ("gone", &gone, "the certificate is revoked"),
        ("other", &file, "is about another certificate"),
        (
            "other",
            &forged,
            "is not signed by the certificate's issuer",
        ),
        ("good", &garbage, "expected an OCSP response"),
        ("good", &certs.dir().join("absent"), "cannot be read"),
    ] {
        let fault = open(word, file).err();
        let fault = fault.unwrap_or_else(|| panic!("{word} passes: {expected}"));
        assert!(fault.contains(expected), "{word}: {fault}");
    }
}
