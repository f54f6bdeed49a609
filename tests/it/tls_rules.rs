//! Rules of the TLS handshake, and the threads that perform it.
//!
//! In: clients that try forbidden things. Out: what they got. Source: RFC 8446 §2.3 (0-RTT), §4.2.7; RFC
//! 5746; RFC 8996; Mozilla Server Side TLS 5.7; FAULTS D35.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use foreign_types::ForeignTypeRef;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslRef, SslSession, SslStream, SslVersion,
};

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::tls_sessions::keeping;
use crate::vip::Block;

/// Two listeners, and for one name a certificate of each key type.
pub fn yaml(certs: &Certs) -> String {
    let dir = certs.dir().display();
    format!(
        "threads: 2\nnodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n  \
         ec: {{ chain: {dir}/ec.pem, key: {dir}/ec.key }}\n  \
         rsa: {{ chain: {dir}/rsa.pem, key: {dir}/rsa.key }}\nlisteners:\n  \
         - {{ name: here, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [ec, rsa] }} }}\n  \
         - {{ name: there, bind: [200.0.0.11:443], mode: http, to: n1, tls: {{ certificates: [ec, rsa] }} }}\nupgrade_socket: up.sock\n"
    )
}

const HOST: &str = "push.mycompany.com";

/// An edge with that file and one node.
pub struct Rig {
    pub block: Block,
    pub certs: Certs,
    pub edge: Edge,
    node: Node,
}

impl Rig {
    pub async fn start() -> Rig {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("ec", &[HOST], Key::Ecdsa);
        certs.leaf("rsa", &[HOST], Key::Rsa);
        let node = Node::start("n1", block.at("10.0.0.1:8080")).await;
        let edge = Edge::start(&block, &yaml(&certs)).await;
        Rig {
            block,
            certs,
            node,
            edge,
        }
    }

    /// Replaces the edge by a successor process.
    pub async fn succeed(&mut self) {
        let next = self.edge.successor();
        self.edge.wait_log("another process has taken over").await;
        self.edge = next;
    }

    pub fn here(&self) -> SocketAddr {
        self.block.at("200.0.0.10:443")
    }
}

/// A client that verifies nothing; the test inspects what it gets.
fn client() -> SslContextBuilder {
    SslContext::builder(SslMethod::tls_client()).expect("a context")
}

/// A client of one version; it also tries old versions that the library refuses by default.
pub fn client_of(version: SslVersion) -> SslContextBuilder {
    let mut client = client();
    client.set_security_level(0);
    let set = client.set_min_proto_version(Some(version));
    let set = set.and_then(|()| client.set_max_proto_version(Some(version)));
    set.expect("a version");
    client
}

/// Performs a blocking handshake, because the tests use the library's own calls, not tokio's.
pub fn shake(
    context: &SslContext,
    to: SocketAddr,
    tune: impl FnOnce(&mut SslRef),
) -> Result<SslStream<TcpStream>, String> {
    let mut ssl = Ssl::new(context).expect("TLS");
    ssl.set_hostname(HOST).expect("a name");
    tune(&mut ssl);
    let tcp = TcpStream::connect(to).expect("a connection");
    tcp.set_read_timeout(Some(crate::DEADLINE))
        .expect("a deadline");
    let mut stream = SslStream::new(ssl, tcp).expect("a stream");
    stream.connect().map_err(|e| e.to_string())?;
    Ok(stream)
}

/// Sends one request; returns the answer's status line.
pub fn get(stream: &mut SslStream<TcpStream>) -> String {
    let request = format!("GET /hello HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

// SAFETY: declared as in OpenSSL 3's ssl.h; rust-openssl has no call for them.
unsafe extern "C" {
    fn SSL_renegotiate(ssl: *mut openssl_sys::SSL) -> libc::c_int;
    fn SSL_SESSION_set_max_early_data(s: *mut openssl_sys::SSL_SESSION, n: u32) -> libc::c_int;
}

/// `SSL_CTRL_GET_NEGOTIATED_GROUP` of `ssl.h`.
const GET_NEGOTIATED_GROUP: libc::c_int = 134;

/// The group of the key exchange: its number in the IANA's list.
fn group(ssl: &SslRef) -> u16 {
    // SAFETY: the handshake is live and complete, and the control takes no argument.
    let told = unsafe {
        openssl_sys::SSL_ctrl(ssl.as_ptr(), GET_NEGOTIATED_GROUP, 0, std::ptr::null_mut())
    };
    match told {
        // NIDs of the groups that OpenSSL has names for; otherwise the number with a mark
        // (`TLSEXT_nid_unknown`).
        1034 => 29,
        415 => 23,
        other => (other & 0xffff) as u16,
    }
}

/// Aim: a client that supports the hybrid key exchange gets it, whatever it prefers; others get X25519 or
/// P-256. Source: RFC 8446 §4.2.7; draft-ietf-tls-ecdhe-mlkem. Fails if `GROUPS` does not begin with it.
#[tokio::test(flavor = "multi_thread")]
async fn the_hybrid_key_exchange_comes_first() {
    let rig = Rig::start().await;
    for (offered, expected) in [
        ("*X25519:*X25519MLKEM768", 4588),
        ("X25519MLKEM768:X25519", 4588),
        ("X25519:P-256", 29),
        ("P-256", 23),
    ] {
        let mut client = client();
        client.set_groups_list(offered).expect("groups");
        let stream = shake(&client.build(), rig.here(), |_| ()).expect(offered);
        assert_eq!(group(stream.ssl()), expected, "{offered}");
    }
}

/// Aim: D35. TLS 1.0 and 1.1, and ciphers without forward secrecy, including RC4, get an alert.
#[tokio::test(flavor = "multi_thread")]
async fn old_versions_and_ciphers_get_an_alert() {
    let rig = Rig::start().await;
    for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let refused = shake(&client_of(version).build(), rig.here(), |_| ()).err();
        let refused = refused.unwrap_or_else(|| panic!("{version:?} is spoken"));
        assert!(refused.contains("alert protocol version"), "{refused}");
    }
    for cipher in [
        "AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-SHA",
        "DHE-RSA-AES128-GCM-SHA256",
    ] {
        let mut client = client_of(SslVersion::TLS1_2);
        client.set_cipher_list(cipher).expect("a cipher");
        let refused = shake(&client.build(), rig.here(), |_| ()).err();
        let refused = refused.unwrap_or_else(|| panic!("{cipher} is spoken"));
        assert!(
            refused.contains("alert handshake failure"),
            "{cipher}: {refused}"
        );
    }
    // Our library has no RC4: a ClientHello by hand that offers only RSA_WITH_RC4_128_SHA.
    let mut stream = TcpStream::connect(rig.here()).expect("a connection");
    stream
        .set_read_timeout(Some(crate::DEADLINE))
        .expect("a deadline");
    let hello = [
        &[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0, 5, 1, 0],
    ]
    .concat();
    stream.write_all(&hello).expect("send");
    let mut alert = Vec::new();
    let _ = stream.read_to_end(&mut alert);
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 40], "fatal, handshake_failure");
}

/// Aim: D35. A client cannot make the edge shake hands twice on one connection: no flood of renegotiations
/// can cost more than one handshake. Source: RFC 5746 §4.5. Fails with `ALLOW_CLIENT_RENEGOTIATION` instead
/// of `NO_RENEGOTIATION`.
#[tokio::test(flavor = "multi_thread")]
async fn renegotiation_is_refused() {
    let rig = Rig::start().await;
    let client = client_of(SslVersion::TLS1_2).build();
    let mut stream = shake(&client, rig.here(), |_| ()).expect("a handshake");
    // SAFETY: a live connection whose handshake is done.
    assert_eq!(unsafe { SSL_renegotiate(stream.ssl().as_ptr()) }, 1);
    let refused = stream.do_handshake().err().map(|e| e.to_string());
    let refused = refused.expect("no second handshake");
    assert!(refused.contains("no renegotiation"), "{refused}");
    H1::connect(&Dial::tls(rig.here(), HOST, rig.certs.ca())).await;
}

/// Aim: D35. No ticket allows 0-RTT. If a client sends a POST as early data nevertheless, the edge ignores
/// it: the node never sees it, however often it is replayed. Requests after the handshake are served. Source:
/// RFC 8446 §2.3, §8. Fails if `set_max_early_data` is ever called.
#[tokio::test(flavor = "multi_thread")]
async fn early_data_is_ignored() {
    let rig = Rig::start().await;
    let (client, kept) = keeping(SslVersion::TLS1_3);
    let mut first = shake(&client, rig.here(), |_| ()).expect("a handshake");
    assert_eq!(get(&mut first), "HTTP/1.1 200 OK");
    let session = kept.lock().expect("no panic").take().expect("a ticket");
    assert_eq!(session.max_early_data(), 0, "the ticket allows none");
    let post = format!(
        "POST /lightstreamer/create_session.txt HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
    );
    // A client uses a ticket once; a replay needs a copy.
    let copy = session.to_der().expect("DER");
    for _ in 0..2 {
        let session = SslSession::from_der(&copy).expect("a session");
        // SAFETY: a live session of our own; the client only deceives itself.
        unsafe { SSL_SESSION_set_max_early_data(session.as_ptr(), 4096) };
        let mut ssl = Ssl::new(&client).expect("TLS");
        ssl.set_hostname(HOST).expect("a name");
        ssl.set_connect_state();
        // SAFETY: the session was created under this very context.
        unsafe { ssl.set_session(&session).expect("a session") };
        let tcp = TcpStream::connect(rig.here()).expect("a connection");
        tcp.set_read_timeout(Some(crate::DEADLINE))
            .expect("a deadline");
        let mut stream = SslStream::new(ssl, tcp).expect("a stream");
        let sent = stream
            .write_early_data(post.as_bytes())
            .expect("early data");
        assert_eq!(sent, post.len());
        stream.connect().expect("a handshake");
        assert_eq!(get(&mut stream), "HTTP/1.1 200 OK");
    }
    let seen = rig.node.seen();
    let heard: Vec<_> = seen.requests().iter().map(|r| r.text()).collect();
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(!heard.iter().any(|h| h.starts_with("POST")), "{heard:?}");
}

/// Aim: of two certificates for one name each client gets the one it can verify, the first if it can verify
/// both. Source: docs/configuration.md, `listeners[].tls`. Fails without `with_companions`.
#[tokio::test(flavor = "multi_thread")]
async fn each_client_gets_the_key_type_it_verifies() {
    let rig = Rig::start().await;
    let leaf = |word: &str| {
        let pem = std::fs::read(rig.certs.dir().join(word)).expect("a leaf");
        let leaf = openssl::x509::X509::from_pem(&pem).expect("PEM");
        leaf.to_der().expect("DER")
    };
    for (signatures, expected) in [
        ("RSA-PSS+SHA256", "rsa.pem"),
        ("ECDSA+SHA256", "ec.pem"),
        ("RSA-PSS+SHA256:ECDSA+SHA256", "ec.pem"),
    ] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let mut client = client_of(version);
            client.set_sigalgs_list(signatures).expect("signatures");
            let client = client.build();
            // Also without a server name.
            for named in [true, false] {
                let mut ssl = Ssl::new(&client).expect("TLS");
                if named {
                    ssl.set_hostname(HOST).expect("a name");
                }
                let tcp = TcpStream::connect(rig.here()).expect("a connection");
                let mut stream = SslStream::new(ssl, tcp).expect("a stream");
                stream.connect().expect(signatures);
                let shown = stream.ssl().peer_certificate().expect("a certificate");
                let shown = shown.to_der().expect("DER");
                assert!(
                    shown == leaf(expected),
                    "{signatures}, {version:?}, {named}"
                );
            }
        }
    }
}

/// CPU time in nanoseconds and niceness of the threads of `pid` called `kind-0`, `kind-1`, ….
fn threads(pid: u32, kind: &str) -> (u64, Vec<String>) {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let all = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let paths = all.map(|task| task.expect("an entry").path());
    let of_kind = paths.filter(|path| read(path.join("comm")).starts_with(&format!("{kind}-")));
    let (mut cpu, mut nice) = (0, Vec::new());
    for path in of_kind {
        let used = read(path.join("schedstat"));
        cpu += used
            .split(' ')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0);
        nice.extend(niceness(&read(path.join("stat"))));
    }
    (cpu, nice)
}

/// Field 19 of `stat`, proc(5); the name in brackets is the second.
fn niceness(stat: &str) -> Option<String> {
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    fields.split(' ').nth(16).map(str::to_owned)
}

/// Aim: handshakes run on their own threads, which give way to the data threads. Source: issue "TLS offload",
/// handshake. Fails if a connection's handshake runs on the thread that serves it.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_run_on_their_own_threads() {
    let rig = Rig::start().await;
    let pid = rig.edge.pid();
    assert_eq!(threads(pid, "handshake").1, ["10", "10"]);
    let ours = std::fs::read_to_string("/proc/self/stat").expect("this process");
    let ours = niceness(&ours).expect("a niceness");
    assert_eq!(threads(pid, "data").1, [ours.clone(), ours]);
    let before = [threads(pid, "handshake").0, threads(pid, "data").0];
    let client = client().build();
    for _ in 0..100 {
        shake(&client, rig.here(), |_| ()).expect("a handshake");
    }
    let handshakes = threads(pid, "handshake").0 - before[0];
    let data = threads(pid, "data").0 - before[1];
    assert!(handshakes > 2 * data, "{handshakes} and {data} ns");
}
