//! HTTP/1 rules over real sockets: hop-by-hop fields, lengths, dates, targets, old versions, TLS ends without
//! close_notify.
//!
//! In: a scripted node, clients that read every byte. Out: what reached the other side. Source: RFC 9110
//! §6.6.1, §7.6.1, §8.6; RFC 9112 §2.2, §3.2, §6.3, §9.3, §9.8.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::deadline;
use crate::edge::Edge;
use crate::vip::Block;

/// Fields of a node's answer.
mod answers;
/// Peers that end TLS without close_notify.
mod ends;
/// Clients that speak HTTP/1.0.
mod old;
/// Targets with bytes that are legal in a field value only.
mod targets;

const HOST: &str = "push.mycompany.com";

/// The node's answer for a request's head.
type Answers = fn(&str) -> Vec<u8>;

/// A scripted node that keeps the heads it read, behind an edge with a plain and a TLS VIP.
struct Scripted {
    block: Block,
    certs: Certs,
    edge: Edge,
    heads: Arc<Mutex<Vec<Vec<u8>>>>,
    node: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.node.abort();
    }
}

impl Scripted {
    async fn start(answers: Answers) -> Scripted {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let dir = certs.dir().display();
        let yaml = format!(
            "nodes: {{ n1: {{ address: 10.0.0.9:8080 }} }}\n\
             certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n\
             listeners:\n  - {{ name: plain, bind: [200.0.0.10:80], mode: http, to: n1 }}\n  \
             - {{ name: tls, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [push] }} }}\n"
        );
        let listener = TcpListener::bind(block.at("10.0.0.9:8080")).await;
        let heads = Arc::new(Mutex::new(Vec::new()));
        let node = tokio::spawn(accept(listener.expect("bind"), answers, heads.clone()));
        let edge = Edge::start(&block, &yaml).await;
        Scripted {
            block,
            certs,
            edge,
            heads,
            node,
        }
    }

    fn plain(&self) -> Dial {
        Dial::plain(self.block.at("200.0.0.10:80")).host(HOST)
    }

    fn tls(&self) -> Dial {
        Dial::tls(self.block.at("200.0.0.10:443"), HOST, self.certs.ca())
    }

    /// The heads the node read, in order.
    fn heads(&self) -> Vec<Vec<u8>> {
        self.heads.lock().clone()
    }

    /// Sends `bytes` on a new plain connection and reads until `end` has come, or the connection ends.
    async fn ask(&self, bytes: impl AsRef<[u8]>, end: &[u8]) -> Vec<u8> {
        let mut client = self.plain().tcp().await;
        client.write_all(bytes.as_ref()).await.expect("send");
        until(&mut client, end).await
    }

    /// GETs `path` and returns the answer's head in lower case.
    async fn head_of(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = self.ask(request, b"\r\n\r\n").await;
        String::from_utf8_lossy(&answer).to_ascii_lowercase()
    }
}

async fn accept(listener: TcpListener, answers: Answers, heads: Arc<Mutex<Vec<Vec<u8>>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, answers, heads.clone()));
    }
}

/// Answers one head after the other; the connection stays open, like that of a node that hides its fault.
async fn serve(mut stream: TcpStream, answers: Answers, heads: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut got = Vec::new();
    loop {
        while let Some(end) = memchr::memmem::find(&got, b"\r\n\r\n") {
            let head: Vec<u8> = got.drain(..end + 4).collect();
            let answer = answers(&String::from_utf8_lossy(&head));
            heads.lock().push(head);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut got).await, Ok(n) if n > 0) {
            return;
        }
    }
}

/// Reads until the bytes contain `end`, or the connection ends.
async fn until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    let read = async {
        while memchr::memmem::find(&got, end).is_none() {
            if !matches!(stream.read_buf(&mut got).await, Ok(n) if n > 0) {
                return;
            }
        }
    };
    deadline("an answer", read).await;
    got
}

/// Values of the field `name` in a head; both are in lower case.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let named = lines.filter(|(key, _)| *key == name);
    named.map(|(_, value)| value.trim()).collect()
}
