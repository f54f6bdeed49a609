//! ALPN at layer 4: the edge answers for nodes that speak HTTP/2 themselves.
//!
//! Source: RFC 7301 §3.2; grpc/grpc#18710; `tls.alpn`.

use tokio::net::TcpListener;

use crate::certs::{Certs, Key};
use crate::client::h2::H2;
use crate::client::{Dial, handshake};
use crate::edge::Edge;
use crate::vip::Block;

use super::rig::HOST;

/// Listener's port, the protocols a client offers, the one chosen; `Err`: the handshake is refused.
type Case = (u16, &'static [u8], Result<Option<&'static str>, ()>);

const CASES: &[Case] = &[
    (443, b"\x02h2", Ok(Some("h2"))),
    (443, b"\x08http/1.1\x02h2", Ok(Some("h2"))),
    (443, b"\x08http/1.1", Err(())),
    (443, b"", Ok(None)),
    (444, b"\x02h2\x08http/1.1", Ok(Some("http/1.1"))),
    (444, b"\x02h2", Ok(Some("h2"))),
    (444, b"\x04mqtt\x02h2", Ok(Some("h2"))),
    (444, b"\x04mqtt", Err(())),
    (445, b"\x02h2", Ok(None)),
    (445, b"\x02h2\x08http/1.1", Ok(Some("http/1.1"))),
    (445, b"\x04mqtt", Ok(None)),
];

/// Aim: the listener's order decides. A client that offers none of the listener's protocols is refused; one
/// without ALPN is let in. Without the key the edge answers only http/1.1. A gRPC-like exchange with an
/// HTTP/2 node passes. Fails if the edge answers `h2` for nodes that are not configured for it.
#[tokio::test(flavor = "multi_thread")]
async fn layer_4_answers_alpn_as_configured() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let dir = certs.dir().display();
    let listener = |port: u16, alpn: &str| {
        format!(
            "  - {{ name: l{port}, bind: [200.0.0.10:{port}], mode: tcp, to: n1, \
             tls: {{ certificates: [push]{alpn} }} }}\n"
        )
    };
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.9:8080 }} }}\n\
         certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n\
         listeners:\n{}{}{}",
        listener(443, ", alpn: h2"),
        listener(444, ", alpn: [http/1.1, h2]"),
        listener(445, ""),
    );
    let node = TcpListener::bind(block.at("10.0.0.9:8080"))
        .await
        .expect("bind");
    let served = tokio::spawn(serve(node));
    let _edge = Edge::start(&block, &yaml).await;
    for (port, offered, chosen) in CASES {
        let what = format!("{port}: {}", String::from_utf8_lossy(offered));
        let mut dial = Dial::tls(block.at(&format!("200.0.0.10:{port}")), HOST, certs.ca());
        let mut tls = dial.tls.take().expect("TLS");
        tls.alpn = offered;
        let shaken = handshake(dial.tcp().await, &tls).await;
        let got = shaken.map_err(|_| ()).map(|stream| {
            let chosen = stream.ssl().selected_alpn_protocol();
            chosen.map(|p| String::from_utf8_lossy(p).into_owned())
        });
        assert_eq!(
            got.as_ref().map(Option::as_deref),
            chosen.as_ref().map(|c| *c),
            "{what}"
        );
    }
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    let mut client = H2::connect(&dial).await;
    assert_eq!(
        client.post("/pkg.Service/Call", b"ask").await.body(),
        b"ask"
    );
    served.abort();
}

/// A node that speaks HTTP/2 and echoes the request.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let asked = body.data().await.and_then(Result::ok).unwrap_or_default();
                    let head = http::Response::new(());
                    let sent = answer
                        .send_response(head, false)
                        .and_then(|mut s| s.send_data(asked, true));
                    sent.expect("the client is there");
                });
            }
        });
    }
}
