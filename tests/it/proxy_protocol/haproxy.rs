//! HAProxy at the other end of the PROXY protocol: as the balancer in front, and as the node.
//!
//! In: the system's `haproxy`, a configuration. Out: how each side read the other's headers. Source:
//! Lightstreamer clustering §1; FAULTS D42; HAProxy's `send-proxy-v2`, `accept-proxy`.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Behind;
use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::{Dial, Io, handshake};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::{HOST, Setup};
use crate::vip::Block;

/// A running HAProxy; dropping it ends the process.
struct Haproxy {
    child: Child,
    _file: tempfile::NamedTempFile,
}

impl Haproxy {
    /// Starts HAProxy with these sections, whose addresses are the guide's, and waits until `at` is open.
    async fn start(block: &Block, sections: &str, at: &str) -> Haproxy {
        let head = "global\n  nbthread 1\ndefaults\n  timeout connect 5s\n  timeout client 60s\n  \
                    timeout server 60s\n";
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = block.map(&format!("{head}{sections}"));
        std::fs::write(file.path(), text).expect("write the configuration");
        // Servers are in sbin, which is not on every PATH.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut command = Command::new("haproxy");
        command
            .env("PATH", path)
            .args(["-db", "-q", "-f"])
            .arg(file.path());
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.expect("haproxy is installed (`make test` installs it)");
        let running = Haproxy { child, _file: file };
        let dial = Dial::plain(block.at(at));
        deadline("haproxy to listen", async {
            while dial.try_tcp().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        running
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Aim: D42. HAProxy in front announces the client, by version 1 and 2, with and without its TLVs, to plain
/// and TLS listeners and at layer 4. Fails if the edge does not understand what a real balancer writes.
#[tokio::test(flavor = "multi_thread")]
async fn haproxy_in_front() {
    let behind = Behind::start("20s").await;
    let balancer = behind.block.client(1);
    let mut sections = String::new();
    let sends = [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    ];
    let servers = [
        ("plain", "200.0.0.10:80"),
        ("tls", "200.0.0.10:443"),
        ("raw", "200.0.0.11:80"),
    ];
    let mut cases = Vec::new();
    for (i, send) in sends.iter().enumerate() {
        for (listener, server) in servers {
            let vip = format!("200.0.0.{}:8080", 20 + cases.len());
            sections += &format!(
                "listen l{i}{listener}\n  mode tcp\n  unique-id-format %{{+X}}o%ci%cp\n  bind {vip}\n  \
                 server s {server} {send} source {balancer}\n"
            );
            cases.push((listener, send, vip));
        }
    }
    let _haproxy = Haproxy::start(&behind.block, &sections, "200.0.0.20:8080").await;
    for (n, (listener, send, vip)) in cases.iter().enumerate() {
        let own = behind.block.client(10 + n as u8);
        let mut dial = Dial::plain(behind.block.at(vip)).host(HOST).from(own);
        if *listener == "tls" {
            dial.tls = behind.dial("tls", 1).tls;
        }
        let tcp = dial.tcp().await;
        let client = tcp.local_addr().expect("connected").to_string();
        let io: Box<dyn Io> = match &dial.tls {
            Some(tls) => Box::new(handshake(tcp, tls).await.expect("a TLS handshake")),
            None => Box::new(tcp),
        };
        let mut h1 = H1::over(io);
        let target = format!("/hello?n={n}");
        let answer = h1.get(&target, &[("Host", HOST)]).await;
        assert_eq!(answer.status, 200, "{listener}, {send}");
        if *listener != "raw" {
            assert_eq!(
                behind.forwarded_for(&target),
                [own.to_string()],
                "{listener}, {send}"
            );
        }
        drop(h1);
        let reached = dial.to.to_string();
        let logged = |l: &serde_json::Value| l["client"] == client && l["vip"] == reached;
        let any = |lines: &[serde_json::Value]| lines.iter().any(logged);
        behind
            .edge
            .wait_access(&format!("{listener}, {send}"), any)
            .await;
    }
}

/// Aim: D41. HAProxy in front ends TLS and announces that in its header; the edge believes it. Nodes get
/// `https`, `redirect_https` leaves the request alone, the name at layer 4 is that of the handshake, and our
/// own header passes it on. Fails if the edge only skips the TLVs. Without TLS in front, all of it stays
/// plain.
#[tokio::test(flavor = "multi_thread")]
async fn tls_that_ended_in_front() {
    let (block, certs) = (Block::claim(), Certs::new());
    let leaf = certs.leaf("push", &[HOST], Key::Ecdsa);
    let read = |file: &std::path::Path| std::fs::read(file).expect("PEM");
    let both = [read(&leaf.chain), read(&leaf.key)].concat();
    let pem = certs.dir().join("both.pem");
    std::fs::write(&pem, both).expect("write");
    let nodes = [
        Node::start("n1", block.at("10.0.0.1:8080")).await,
        Node::start("n2", block.at("10.0.0.2:8080")).await,
    ];
    let trusted = format!("accept_proxy: [{}]", block.client(1));
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }}, n2: {{ address: 10.0.0.2:8080 }} }}\n\
         pools: {{ p: {{ nodes: [n1] }} }}\nlisteners:\n  \
         - {{ name: web, bind: [200.0.0.10:80], mode: http, to: p, {trusted}, \
         plugins: [{{ redirect_https: {{}} }}, {{ host_route: {{ hosts: {{ {HOST}: n1 }} }} }}, \
         {{ forwarded: {{}} }}] }}\n  \
         - {{ name: raw, bind: [200.0.0.11:80], mode: tcp, to: p, {trusted}, \
         plugins: [{{ host_route: {{ hosts: {{ {HOST}: n2 }} }} }}] }}\n"
    );
    let edge = Edge::start(&block, &yaml).await;
    let mut sections = String::new();
    for (vip, server) in [("20", "200.0.0.10:80"), ("21", "200.0.0.11:80")] {
        sections += &format!(
            "listen l{vip}\n  mode tcp\n  bind 200.0.0.{vip}:8443 ssl crt {}\n  bind 200.0.0.{vip}:8080\n  \
             server s {server} send-proxy-v2 proxy-v2-options ssl,authority source {}\n",
            pem.display(),
            block.client(1)
        );
    }
    let _haproxy = Haproxy::start(&block, &sections, "200.0.0.20:8080").await;
    for (vip, node) in [("20", "n1"), ("21", "n2")] {
        let dial = Dial::tls(block.at(&format!("200.0.0.{vip}:8443")), HOST, certs.ca());
        let answer = H1::connect(&dial).await.get("/hello", &[]).await;
        assert_eq!((answer.status, answer.node()), (200, node), "TLS by {vip}");
        let dial = Dial::plain(block.at(&format!("200.0.0.{vip}:8080"))).host(HOST);
        let answer = H1::connect(&dial).await.get("/hello", &[]).await;
        match vip {
            "20" => assert_eq!(answer.status, 308, "plain is redirected"),
            _ => assert_eq!((answer.status, answer.node()), (200, "n1"), "no name"),
        }
    }
    let seen = nodes[0].seen();
    let asked = seen.requests();
    let web = asked
        .iter()
        .find(|r| !r.header("x-forwarded-proto").is_empty());
    let web = web.expect("the request through the web listener");
    assert_eq!(web.header("x-forwarded-proto"), ["https"]);
    let told = |l: &serde_json::Value| l["tls"] == "TLSv1.3" && l["sni"] == HOST;
    edge.wait_access("TLS in front, in the log", |lines| lines.iter().any(told))
        .await;
}

/// Aim: D42. HAProxy as the node accepts our header of either version and reads client, VIP and authority
/// from it, also for health checks. Fails if a real receiver refuses or misreads our header.
#[tokio::test(flavor = "multi_thread")]
async fn haproxy_as_node() {
    for version in [1, 2] {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let node = Node::start("n1", block.at("10.0.0.1:8081")).await;
        let sections = "listen node\n  mode http\n  bind 10.0.0.1:8080 accept-proxy\n  \
                        http-request set-header X-Client %[src]:%[src_port]\n  \
                        http-request set-header X-Vip %[dst]:%[dst_port]\n  \
                        http-request set-header X-Authority %[fc_pp_authority]\n  \
                        server s 10.0.0.1:8081\n";
        let _haproxy = Haproxy::start(&block, sections, "10.0.0.1:8080").await;
        let plugins = format!("[{{ proxy_protocol: {{ version: {version} }} }}]");
        let yaml = crate::setup::yaml(&certs, 1, &plugins, "");
        let yaml = yaml.replace(
            "fall: 1 }",
            &format!("fall: 1, proxy_protocol: {version} }}"),
        );
        let nodes = vec![node];
        let edge = Edge::start(&block, &yaml).await;
        let setup = Setup {
            block,
            nodes,
            edge,
            certs,
        };
        setup.wait_state("n1", "up").await;
        for (what, dial) in setup.both() {
            let tcp = dial.clone().from(setup.block.client(7)).tcp().await;
            let client = tcp.local_addr().expect("connected").to_string();
            let io: Box<dyn Io> = match &dial.tls {
                Some(tls) => Box::new(handshake(tcp, tls).await.expect("a TLS handshake")),
                None => Box::new(tcp),
            };
            let mut h1 = H1::over(io);
            for n in 0..2 {
                let target = format!("/hello?{what}={n}");
                let answer = h1.get(&target, &[("Host", HOST)]).await;
                assert_eq!(answer.status, 200, "version {version}, {what}");
                let seen = setup.nodes[0].seen();
                let request = seen.requests().into_iter().rfind(|r| r.target == target);
                let request = request.expect("it arrived");
                assert_eq!(request.header("x-client"), [client.as_str()], "{what}");
                assert_eq!(request.header("x-vip"), [dial.to.to_string()], "{what}");
                let name = if version == 2 { HOST } else { "" };
                assert_eq!(
                    request.header("x-authority"),
                    [name],
                    "version {version}, {what}"
                );
            }
        }
    }
}
