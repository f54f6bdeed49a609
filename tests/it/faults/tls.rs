//! D31–D33: malformed, odd and stalled handshakes. Source: RFC 6066 §3; RFC 8446 §5.1 (fragments), §6
//! (alerts).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::ssl::{Ssl, SslContext, SslMethod};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::{Dial, Tls};
use crate::deadline;

use super::{Counted, Rig, Verdict, request};

/// The first certificate is the default.
const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
pools: { p: { nodes: [n1] } }
listeners:
  - name: push
    bind: [200.0.0.10:80]
    mode: http
    to: p
    handshake_timeout: 2s
    tls: { certificates: [push, other] }
  - name: strict
    bind: [200.0.0.11:80]
    mode: http
    to: p
    tls: { certificates: [push], strict_sni: true }
  - { name: plain, bind: [200.0.0.12:80], mode: http, to: p }
";

async fn rig(certs: &Certs) -> Rig {
    let mut yaml = YAML.to_owned() + "certificates:\n";
    for name in ["push", "other"] {
        let leaf = certs.leaf(name, &[&format!("{name}.mycompany.com")], Key::Ecdsa);
        let (chain, key) = (leaf.chain.display(), leaf.key.display());
        yaml += &format!("  {name}: {{ chain: {chain}, key: {key} }}\n");
    }
    Rig::start_tls(1, &yaml, certs.ca()).await
}

/// Name of the certificate that a client gets when it asks for `sni`; the alert or error otherwise.
async fn shown(dial: &Dial, sni: Option<&str>) -> Result<String, String> {
    let ssl = client_ssl(sni, b"");
    let mut stream = SslStream::new(ssl, dial.tcp().await).expect("a stream");
    let shaken = deadline("a handshake", Pin::new(&mut stream).connect()).await;
    shaken.map_err(|e| e.to_string())?;
    let leaf = stream.ssl().peer_certificate().expect("a certificate");
    let name = leaf.subject_alt_names().expect("names");
    Ok(name[0].dnsname().unwrap_or_default().to_owned())
}

/// A client that verifies nothing: the test compares the certificate itself.
fn client_ssl(sni: Option<&str>, alpn: &[u8]) -> Ssl {
    let mut context = SslContext::builder(SslMethod::tls_client()).expect("a context");
    if !alpn.is_empty() {
        context.set_alpn_protos(alpn).expect("protocols");
    }
    let mut ssl = Ssl::new(&context.build()).expect("TLS");
    if let Some(sni) = sni {
        ssl.set_hostname(sni).expect("a name of legal length");
    }
    ssl
}

/// D31: a server name chooses a certificate, or the default is shown; with `strict_sni` an unknown name is
/// refused, and so is a client without one. Fails if an odd name ends the handshake where the default would serve.
#[tokio::test(flavor = "multi_thread")]
async fn server_names() {
    let certs = Certs::new();
    let mut rig = rig(&certs).await;
    let strict = Dial {
        to: rig.block.at("200.0.0.11:80"),
        ..rig.good.clone()
    };
    let long = "a".repeat(255);
    let refused = "pushgate_connections_refused_total{listener=\"strict\",reason=\"handshake\"}";
    let mut count = 0.0;
    for (sni, name, strictly) in [
        (None, "push", false),
        (Some("push.mycompany.com"), "push", true),
        (Some("PUSH.mycompany.COM"), "push", true),
        (Some("other.mycompany.com"), "other", false),
        (Some("unknown.mycompany.com"), "push", false),
        (Some("127.0.0.1"), "push", false),
        (Some("::1"), "push", false),
        (Some("a..b"), "push", false),
        (Some("*.mycompany.com"), "push", false),
        (Some(long.as_str()), "push", false),
    ] {
        let got = shown(&rig.good, sni).await;
        assert_eq!(got, Ok(format!("{name}.mycompany.com")), "{sni:?}");
        let got = shown(&strict, sni).await;
        // A name that is no legal host name (RFC 6066 §3) counts as absent; it is never a fault.
        assert_eq!(got.is_ok(), strictly, "strict: {sni:?}: {got:?}");
        if let Err(alert) = got {
            assert!(alert.contains("unrecognized name"), "{sni:?}: {alert}");
            count += 1.0;
            rig.wait_sample("D31", refused, count).await;
        }
    }
    rig.serves("D31").await;
    rig.rest().await;
}

/// Builds a ClientHello of TLS 1.2 with these server names.
fn hello(names: &[&[u8]]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let list: Vec<u8> = names
        .iter()
        .flat_map(|n| [&[0], &sized(n)[..]].concat())
        .collect();
    let extension = [&[0, 0][..], &sized(&sized(&list))].concat();
    let groups = [&[0, 10][..], &sized(&sized(&[0, 23]))].concat();
    let signatures = [&[0, 13][..], &sized(&sized(&[4, 3, 8, 4]))].concat();
    let extensions = sized(&[extension, groups, signatures].concat());
    let suites = sized(&[0xc0, 0x2b]);
    let body = [&[3, 3][..], &[7; 32], &[0], &suites, &[1, 0], &extensions].concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// D31: names no library would send. Fails unless the answer is a TLS record: a certificate or an alert.
#[tokio::test(flavor = "multi_thread")]
async fn server_names_by_hand() {
    let certs = Certs::new();
    let mut rig = rig(&certs).await;
    let long = [b'a'; 300];
    let rows: &[(&str, Vec<u8>)] = &[
        ("a good one", hello(&[b"push.mycompany.com"])),
        ("300 bytes", hello(&[&long])),
        (
            "two names",
            hello(&[b"push.mycompany.com", b"other.mycompany.com"]),
        ),
        ("no name", hello(&[])),
        ("empty", hello(&[b""])),
        ("NUL", hello(&[b"push.mycompany.com\0.evil"])),
        ("bytes", hello(&[&[0xff, 0xfe, 0x0d, 0x0a]])),
    ];
    for (row, bytes) in rows {
        for to in ["200.0.0.10:80", "200.0.0.11:80"] {
            let mut stream = Dial::plain(rig.block.at(to)).tcp().await;
            stream.write_all(bytes).await.expect("send");
            let mut first = [0; 1];
            let read = deadline(row, stream.read(&mut first)).await;
            assert!(matches!(read, Ok(1)), "{row}: {read:?}");
            assert!([21, 22].contains(&first[0]), "{row}: {first:?}");
            assert!(first[0] == 22 || *row != "a good one", "{row}");
        }
        rig.serves(row).await;
    }
    rig.rest().await;
}

/// Sends at most `most` bytes at a time, each piece in its own segment (TCP_NODELAY).
struct Dribble {
    stream: TcpStream,
    most: usize,
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = data.len().min(self.most);
        Pin::new(&mut self.stream).poll_write(cx, &data[..n])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// D32: a ClientHello works in any pieces: byte by byte, and one larger than a segment, in two.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_hello_in_pieces() {
    let certs = Certs::new();
    let mut rig = rig(&certs).await;
    // 200 protocols make the ClientHello as large as post-quantum key shares do.
    let mut alpn = b"\x08http/1.1".to_vec();
    for n in 0..200 {
        alpn.extend_from_slice(format!("\x08none-{n:03}").as_bytes());
    }
    for (row, most, alpn) in [
        ("byte by byte", 1, &b"\x08http/1.1"[..]),
        ("two segments", 1400, &alpn),
        ("byte by byte, large", 1, &alpn),
    ] {
        let stream = rig.good.tcp().await;
        let ssl = client_ssl(Some("push.mycompany.com"), alpn);
        let mut stream = SslStream::new(ssl, Dribble { stream, most }).expect("a stream");
        let shaken = deadline(row, Pin::new(&mut stream).connect()).await;
        shaken.unwrap_or_else(|e| panic!("{row}: {e}"));
        let mut client = H1::over(Box::new(stream));
        let answer = client
            .get("/hello", &[("Host", "push.mycompany.com")])
            .await;
        assert_eq!(answer.status, 200, "{row}");
    }
    rig.rest().await;
}

/// D32: bytes that are not TLS. Fails if plain HTTP gets no hint, if garbage gets an answer in plain text, or
/// if one of them is not counted.
#[tokio::test(flavor = "multi_thread")]
async fn other_protocols() {
    let certs = Certs::new();
    let mut rig = rig(&certs).await;
    let hint = Verdict {
        status: 400,
        counted: Counted::Refused("plain_http"),
        reaches: false,
    };
    let (push, plain) = (rig.good.to, rig.block.at("200.0.0.12:80"));
    for (row, bytes) in [
        ("D32 plain HTTP", request("GET", "/hello", "")),
        (
            "D32 an upload",
            [&request("POST", "/echo", "")[..], &[b'x'; 1 << 20]].concat(),
        ),
        ("D32 PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ] {
        let answer = rig.judge_at(row, push, "push", &bytes, hint).await;
        assert!(
            answer.contains("text/plain") && answer.contains("https://"),
            "{answer}"
        );
    }
    let alert = Counted::Refused("handshake");
    let zeros = vec![0; 64 << 10];
    let record = [&[22, 3, 1, 0xff, 0xff][..], &[1; 64 << 10]].concat();
    for (row, bytes) in [
        ("D32 garbage", &[0xaa; 64 << 10][..]),
        ("D32 zeros", &zeros),
        ("D32 a 64 KiB record", &record),
        ("D32 lower case", b"get / http/1.1\r\n\r\n"),
    ] {
        // An alert or a bare end, so status 0; never text.
        let verdict = Verdict {
            status: 0,
            counted: alert,
            reaches: false,
        };
        rig.judge_at(row, push, "push", bytes, verdict).await;
    }
    let name = b"push.mycompany.com";
    let row = "D32 TLS on a plain port";
    let bytes = hello(&[name]);
    rig.judge_at(row, plain, "plain", &bytes, Verdict::refused(400))
        .await;
    rig.rest().await;
}

/// D33: a thousand stalled handshakes end at their timeout and are counted; a live stream is not affected.
/// Fails if one of them stays, or if an event of the stream is missing.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_disturb_nobody() {
    let certs = Certs::new();
    let mut rig = rig(&certs).await;
    let mut live = H1::connect(&rig.good).await;
    live.send("GET", "/sse?every=20", &[], b"")
        .await
        .expect("send");
    assert_eq!(live.head().await.expect("a head").status, 200);
    let to = rig.good.to;
    let mut stalled = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let dial = Dial::plain(to);
        stalled.spawn(async move {
            let mut stream = dial.tcp().await;
            // Half send nothing, half send the beginning of a handshake.
            if n % 2 == 0 {
                let _ = stream.write_all(&[22]).await;
            }
            let mut end = Vec::new();
            deadline("the timeout", stream.read_to_end(&mut end))
                .await
                .ok();
            end.len()
        });
    }
    let (mut seen, mut text) = (0u64, String::new());
    while !stalled.is_empty() {
        tokio::select! {
            done = stalled.join_next() => {
                let heard = done.expect("one is left").expect("no panic");
                assert_eq!(heard, 0, "an answer to nothing");
            }
            piece = live.piece() => {
                let piece = piece.expect("the stream goes on").expect("without end");
                text += &String::from_utf8_lossy(&piece);
                while let Some(end) = text.find("\n\n") {
                    assert!(text.starts_with(&format!("id: {seen}\n")), "{text}");
                    text.drain(..end + 2);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 20, "{seen} events");
    let late = "pushgate_connections_refused_total{listener=\"push\",reason=\"handshake_timeout\"}";
    rig.wait_sample("D33", late, 1000.0).await;
    rig.serves("D33").await;
    drop(live);
    rig.rest().await;
}

/// A client that offers only protocols unknown to the edge is refused. Without ALPN the edge serves HTTP/1.1.
#[tokio::test(flavor = "multi_thread")]
async fn application_protocols() {
    let certs = Certs::new();
    let mut rig = rig(&certs).await;
    for alpn in [&b""[..], b"\x08http/1.1", b"\x03foo"] {
        let tls = Tls {
            ca: certs.ca().clone(),
            sni: Some("push.mycompany.com".into()),
            alpn,
        };
        let shaken = crate::client::handshake(rig.good.tcp().await, &tls).await;
        if let Ok(stream) = shaken {
            let mut client = H1::over(Box::new(stream));
            let answer = client
                .get("/hello", &[("Host", "push.mycompany.com")])
                .await;
            assert_eq!(answer.status, 200, "{alpn:?}");
        } else {
            assert_eq!(alpn, b"\x03foo", "{:?}", shaken.err());
        }
    }
    rig.rest().await;
}
