//! TLS peers that end without close_notify: the edge treats that as a cut.
//!
//! In: a node, or a client, that closes TCP within a TLS session, and one that sends close_notify first. Out:
//! an orderly end for the second only. Source: RFC 9112 §9.8 (an answer without close_notify is incomplete);
//! RFC 8446 §6.1.

use std::pin::Pin;

use openssl::ssl::{Ssl, SslContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

use super::HOST;
use crate::certs::{Certs, Key};
use crate::client::h2::{H2, piece};
use crate::client::{Dial, handshake, strict_handshake};
use crate::deadline;
use crate::edge::Edge;
use crate::vip::Block;

const HALF: &[u8] = b"half of the answer";

/// A TLS node behind an edge with HTTP and layer 4, and a layer-4 VIP whose TLS ends at the edge.
struct Rig {
    block: Block,
    certs: Certs,
    _edge: Edge,
    node: TcpListener,
    context: SslContext,
    sink: TcpListener,
}

impl Rig {
    async fn start() -> Rig {
        let (block, certs) = (Block::claim(), Certs::new());
        let context = certs.leaf("push", &[HOST], Key::Ecdsa).context();
        let dir = certs.dir().display();
        let yaml = format!(
            "nodes:\n  n1: {{ address: 10.0.0.1:8443, tls: {{ verify: false }} }}\n  \
             n2: {{ address: 10.0.0.2:8080 }}\n\
             certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n\
             listeners:\n  \
             - {{ name: http, bind: [200.0.0.10:80], mode: http, to: n1 }}\n  \
             - {{ name: https, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [push] }} }}\n  \
             - {{ name: tcp, bind: [200.0.0.11:80], mode: tcp, to: n1 }}\n  \
             - {{ name: up, bind: [200.0.0.12:443], mode: tcp, to: n2, tls: {{ certificates: [push] }} }}\n"
        );
        let node = TcpListener::bind(block.at("10.0.0.1:8443"))
            .await
            .expect("bind");
        let sink = TcpListener::bind(block.at("10.0.0.2:8080"))
            .await
            .expect("bind");
        let _edge = Edge::start(&block, &yaml).await;
        Rig {
            block,
            certs,
            _edge,
            node,
            context,
            sink,
        }
    }

    fn tls(&self, vip: &str) -> Dial {
        Dial::tls(self.block.at(vip), HOST, self.certs.ca())
    }

    /// Serves one connection: reads something, sends `bytes`, and ends with or without close_notify.
    async fn node_says(&self, bytes: &[u8], notify: bool) {
        let (tcp, _) = deadline("the edge's connection", self.node.accept())
            .await
            .expect("accept");
        let mut tls = SslStream::new(Ssl::new(&self.context).expect("TLS"), tcp).expect("TLS");
        deadline("a handshake", Pin::new(&mut tls).accept())
            .await
            .expect("a handshake");
        let read = deadline("a request", tls.read(&mut [0; 4096])).await;
        assert!(read.expect("a request") > 0);
        tls.write_all(bytes).await.expect("send");
        match notify {
            true => tls.shutdown().await.expect("close_notify"),
            false => tls.get_mut().shutdown().await.expect("FIN"),
        }
    }
}

/// Reads to the end; returns whether it was orderly.
async fn to_end(client: &mut (impl AsyncReadExt + Unpin)) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    let end = deadline("the end", client.read_to_end(&mut got)).await;
    (got, end.is_ok())
}

/// Sends `request` and reads to the end. Under TLS, an orderly end has close_notify.
async fn all_of(dial: &Dial, request: &str) -> (Vec<u8>, bool) {
    let mut tcp = dial.tcp().await;
    let Some(tls) = &dial.tls else {
        tcp.write_all(request.as_bytes()).await.expect("send");
        return to_end(&mut tcp).await;
    };
    let mut client = strict_handshake(tcp, tls).await.expect("a handshake");
    client.write_all(request.as_bytes()).await.expect("send");
    to_end(&mut client).await
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of the answer";

/// Aim: a TLS node that ends a close-delimited body without close_notify never makes it look complete, to
/// clients of HTTP/1.1, HTTP/1.0 and HTTP/2, plain and TLS. Source: RFC 9112 §9.8. Fails if the edge ends the
/// chunks, or ends an HTTP/1.0 connection in order. With close_notify it must do so.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_tls_cut_never_looks_whole() {
    let rig = Rig::start().await;
    for notify in [true, false] {
        for version in ["1.0", "1.1"] {
            for tls in [false, true] {
                let what = format!("HTTP/{version}, TLS {tls}, close_notify {notify}");
                let dial = match tls {
                    true => rig.tls("200.0.0.10:443"),
                    false => Dial::plain(rig.block.at("200.0.0.10:80")),
                };
                let request =
                    format!("GET / HTTP/{version}\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
                let ((got, ordered), ()) =
                    tokio::join!(all_of(&dial, &request), rig.node_says(ANSWER, notify));
                let text = String::from_utf8_lossy(&got).into_owned();
                // A reset may overtake bytes, an orderly end may not.
                assert!(
                    !notify || text.contains("half of the answer"),
                    "{what}: {text:?}"
                );
                match version {
                    // Only the connection's end shows such a client that the body is complete.
                    "1.0" => assert_eq!(ordered, notify, "{what}: {text:?}"),
                    _ => assert_eq!(text.ends_with("\r\n0\r\n\r\n"), notify, "{what}: {text:?}"),
                }
            }
        }
    }
}

/// Aim: the same over HTTP/2: the edge resets the stream. Fails if the edge ends it in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_tls_cut_is_reset() {
    let rig = Rig::start().await;
    for notify in [true, false] {
        let mut client = H2::connect(&rig.tls("200.0.0.10:443")).await;
        let ask = async {
            let answer = client.open("/", &[]).await.expect("a head");
            let mut body = answer.into_body();
            loop {
                match piece(&mut body).await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
        };
        let (whole, ()) = tokio::join!(ask, rig.node_says(ANSWER, notify));
        assert_eq!(whole, notify, "close_notify {notify}");
    }
}

/// Aim: at layer 4 the client of a TLS node is reset if the node ends without close_notify; with close_notify
/// the end is orderly. Fails if both look alike.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_4_client_of_a_cut_node_is_reset() {
    let rig = Rig::start().await;
    for notify in [true, false] {
        let mut client = Dial::plain(rig.block.at("200.0.0.11:80")).tcp().await;
        client.write_all(b"hello").await.expect("send");
        let ((got, ordered), ()) = tokio::join!(
            async {
                let mut got = vec![0; HALF.len()];
                deadline("the half", client.read_exact(&mut got))
                    .await
                    .expect("bytes");
                // The client ends too: after an orderly end of the node alone, its own direction stays open.
                let (rest, ordered) = to_end(&mut client).await;
                ([got, rest].concat(), ordered)
            },
            rig.node_says(HALF, notify)
        );
        assert_eq!(
            (got.as_slice(), ordered),
            (HALF, notify),
            "close_notify {notify}"
        );
    }
}

/// Aim: at layer 4 a TLS client that ends without close_notify has its node reset: its bytes may be half a
/// request. Source: RFC 8446 §6.1. Fails if the node sees an orderly end; with close_notify it must.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_4_node_of_a_cut_client_is_reset() {
    let rig = Rig::start().await;
    for notify in [true, false] {
        let dial = rig.tls("200.0.0.12:443");
        let tls = dial.tls.as_ref().expect("TLS was asked for");
        let mut client = handshake(dial.tcp().await, tls).await.expect("a handshake");
        client.write_all(b"DELETE everything").await.expect("send");
        let (mut node, _) = deadline("a connection", rig.sink.accept())
            .await
            .expect("accept");
        let mut got = [0; 17];
        deadline("bytes", node.read_exact(&mut got))
            .await
            .expect("bytes");
        match notify {
            true => client.shutdown().await.expect("close_notify"),
            false => client.get_mut().shutdown().await.expect("FIN"),
        }
        let (_, ordered) = to_end(&mut node).await;
        assert_eq!(ordered, notify, "close_notify {notify}");
    }
}
