//! TLS session resumption: on any listener and thread, after a reload and an upgrade, on another edge.
//!
//! In: clients that come back with their tickets. Out: whether they resume. Source: RFC 8446 §2.2, §C.4; RFC
//! 5077; FAULTS D34.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use openssl::ssl::{SslContext, SslSession, SslSessionCacheMode, SslStream, SslVersion};

use crate::edge::Edge;
use crate::node::Node;
use crate::tls_rules::{Rig, client_of, get, shake, yaml};
use crate::vip::Block;

/// The session a client keeps.
pub type Kept = Arc<Mutex<Option<SslSession>>>;

/// A client that keeps the last session it received.
pub fn keeping(version: SslVersion) -> (SslContext, Kept) {
    let kept = Kept::default();
    let mut client = client_of(version);
    client.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    let keep = kept.clone();
    client.set_new_session_callback(move |_, session| {
        *keep.lock().expect("no panic") = Some(session);
    });
    (client.build(), kept)
}

/// Performs a handshake with the last kept session, if any, and one request. Waits for a new ticket behind
/// the answer: a client of TLS 1.3 uses each ticket once.
fn visit(client: &SslContext, kept: &Kept, to: SocketAddr) -> SslStream<TcpStream> {
    let session = kept.lock().expect("no panic").clone();
    let stream = shake(client, to, |ssl| {
        if let Some(session) = &session {
            // SAFETY: the session comes from this very context.
            unsafe { ssl.set_session(session).expect("a session") }
        }
    });
    let mut stream = stream.expect("a handshake");
    assert_eq!(get(&mut stream), "HTTP/1.1 200 OK");
    stream
}

/// Aim: of clients that come back, on another listener, another thread, after reloads and a binary upgrade,
/// at least 99 in 100 resume. Source: RFC 8446 §2.2; PINGORA W13; FAULTS D34. Fails if listeners or threads
/// have their own keys, if a reload makes new ones, or if a resumed TLS 1.3 session gets no new ticket (seen:
/// every second visit was a full handshake).
#[tokio::test(flavor = "multi_thread")]
async fn sessions_resume_everywhere() {
    const CLIENTS: usize = 200;
    let mut rig = Rig::start().await;
    let there = rig.block.at("200.0.0.11:443");
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let (client, kept) = keeping(version);
            let to = if n % 2 == 0 { rig.here() } else { there };
            let mut stream = visit(&client, &kept, to);
            assert!(!stream.ssl().session_reused(), "the first is full");
            let _ = stream.shutdown();
            clients.push((client, kept));
        }
        let mut resumed = 0;
        for (n, (client, kept)) in clients.iter().enumerate() {
            if n % 50 == 0 {
                assert_eq!(rig.edge.admin("POST", "/api/reload").await.status, 200);
            }
            if n == CLIENTS / 2 {
                rig.succeed().await;
            }
            for to in [rig.here(), there] {
                let mut stream = visit(client, kept, to);
                resumed += usize::from(stream.ssl().session_reused());
                // Without a shutdown, OpenSSL marks the session as not resumable.
                let _ = stream.shutdown();
            }
        }
        println!("{version:?}: {resumed} of {} resumed", 2 * CLIENTS);
        assert!(resumed * 100 >= 2 * CLIENTS * 99, "{version:?}: {resumed}");
    }
}

/// Aim: two edges with one file of ticket keys resume each other's sessions. Source: FAULTS D34. Fails if
/// tickets are sealed by other keys than the file's.
#[tokio::test(flavor = "multi_thread")]
async fn edges_with_one_file_resume_each_others_sessions() {
    let here = Rig::start().await;
    let keys = here.certs.dir().join("tickets.keys");
    std::fs::write(&keys, "07".repeat(80) + "\n").expect("write");
    let there = Block::claim();
    let _node = Node::start("n1", there.at("10.0.0.1:8080")).await;
    let yaml = yaml(&here.certs) + &format!("tickets: {{ file: {} }}\n", keys.display());
    here.edge.rewrite(&here.block, &yaml);
    assert_eq!(here.edge.admin("POST", "/api/reload").await.status, 200);
    let _other = Edge::start(&there, &yaml).await;
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (client, kept) = keeping(version);
        for (to, resumes) in [
            (here.here(), false),
            (there.at("200.0.0.10:443"), true),
            (here.here(), true),
        ] {
            let mut stream = visit(&client, &kept, to);
            assert_eq!(stream.ssl().session_reused(), resumes, "{version:?} {to}");
            let _ = stream.shutdown();
        }
    }
}
