//! Unix sockets: of nodes, of clients and of the operator.
//!
//! In: programs of this machine that speak over files. Out: what they see, and which files are there afterwards.
//! Source: unix(7); issue 15, 3.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::edge::Edge;
use crate::vip::Block;

/// Number of the user `nobody`, and of the group `nogroup`.
const NOBODY: u32 = 65_534;

/// A node at a Unix socket, which answers each request of a connection; returns the heads it got.
fn node(path: &Path) -> Receiver<String> {
    let socket = UnixListener::bind(path).expect("bind");
    let (heads, got) = sync_channel(64);
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            let heads = heads.clone();
            std::thread::spawn(move || {
                while let Some(head) = head(&mut stream) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if !head.starts_with("GET /health") && heads.send(head).is_err()
                        || stream.write_all(answer).is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    got
}

/// Reads one head; `None`: the peer has ended.
fn head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Sends a request after `preamble`, and returns the head of the answer.
fn get(mut stream: UnixStream, preamble: &str, target: &str) -> String {
    let deadline = Some(Duration::from_secs(10));
    stream.set_read_timeout(deadline).expect("a deadline");
    let request = format!("{preamble}GET {target} HTTP/1.1\r\nHost: push.example\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("send");
    let answer = head(&mut stream).expect("an answer");
    stream
        .read_exact(&mut [0; 2])
        .map_or(answer.clone(), |()| answer)
}

struct Files(tempfile::TempDir);

impl Files {
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Aim: flows pass from a Unix socket to a Unix socket; a client is `unix:`, or the one that the PROXY protocol names;
/// the file has its rights and its owner, replaces a stale one, is refused to a rival, stays with a successor and goes at the end.
/// Fails if the peer's address is asked of std, or if the file is removed or left by the wrong process.
#[tokio::test(flavor = "multi_thread")]
async fn flows_pass_over_unix_sockets() {
    let (block, files) = (
        Block::claim(),
        Files(tempfile::tempdir().expect("a folder")),
    );
    let (edge_sock, node_sock) = (files.at("edge.sock"), files.at("node.sock"));
    let abstract_name = format!("pushgate-test-{}", std::process::id());
    let heads = node(&node_sock);
    // A file that a killed process has left.
    drop(UnixListener::bind(&edge_sock).expect("bind"));
    let (edge_at, node_at) = (edge_sock.display(), node_sock.display());
    let upgrade = files.at("upgrade.sock");
    // SAFETY: geteuid(2) only returns a number.
    let is_root = unsafe { libc::geteuid() } == 0;
    let owner = match is_root {
        true => ", user: nobody, group: nogroup",
        false => "",
    };
    let yaml = format!(
        "upgrade_socket: {}\n\
         nodes:\n  n: {{ address: \"unix:{node_at}\", health: {{ http: {{ path: /health }}, interval: 50ms }} }}\n\
         pools: {{ p: {{ nodes: [n] }} }}\n\
         listeners:\n  \
         - {{ name: a, bind: [\"unix:{edge_at}\"], unix: {{ mode: 0640{owner} }}, mode: http, to: p, \
              plugins: [{{ sticky_ip: {{}} }}, {{ forwarded: {{ forwarded: true }} }}] }}\n  \
         - {{ name: b, bind: [\"unix:@{abstract_name}\"], accept_proxy: [\"unix:\"], mode: http, to: p }}\n",
        upgrade.display(),
    );
    let mut edge = Edge::start(&block, &yaml).await;
    let file = std::fs::metadata(&edge_sock).expect("a file");
    assert_eq!(file.permissions().mode() & 0o777, 0o640);
    if is_root {
        assert_eq!((file.uid(), file.gid()), (NOBODY, NOBODY));
    }
    let connect = || UnixStream::connect(&edge_sock).expect("connect");
    assert!(get(connect(), "", "/one").starts_with("HTTP/1.1 200"));
    let seen = heads.recv_timeout(Duration::from_secs(10)).expect("a head");
    assert!(seen.contains("x-forwarded-for: unix:\r\n"), "{seen}");
    assert!(seen.contains("for=unknown;"), "{seen}");

    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name);
    let stream = UnixStream::connect_addr(&address.expect("a name")).expect("connect");
    let preamble = "PROXY TCP4 192.0.2.7 192.0.2.1 1000 80\r\n";
    assert!(get(stream, preamble, "/two").starts_with("HTTP/1.1 200"));
    let lines = edge
        .wait_access("two flows", |lines| lines.len() == 2)
        .await;
    assert_eq!(lines[0]["client"], "unix:");
    assert_eq!(lines[0]["vip"], format!("unix:{edge_at}"));
    assert_eq!(lines[1]["client"], "192.0.2.7:1000");
    let nodes = edge.nodes().await;
    assert_eq!(nodes[0]["address"], format!("unix:{node_at}"));
    assert_eq!(nodes[0]["state"], "up");

    let mut rival = edge.rival();
    assert_ne!(rival.ended().await.code(), Some(0));
    assert!(get(connect(), "", "/three").starts_with("HTTP/1.1 200"));

    let mut next = edge.successor();
    assert_eq!(edge.ended().await.code(), Some(0));
    assert!(get(connect(), "", "/four").starts_with("HTTP/1.1 200"));
    next.signal(libc::SIGTERM);
    assert_eq!(next.ended().await.code(), Some(0));
    assert!(!edge_sock.exists(), "the file is left");
}

/// Asserts that the command line asks the socket that it is given, and the one of the edge's file.
fn orders_reach(admin: &Path, conf: &Path) {
    for by in [
        ["--admin".to_owned(), format!("unix:{}", admin.display())],
        ["-c".to_owned(), conf.display().to_string()],
    ] {
        let mut nodes = Command::new(env!("CARGO_BIN_EXE_pushgate"));
        let told = nodes.arg("nodes").args(&by).output();
        let told = told.expect("the built program starts");
        let table = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(table.contains("none.sock"), "{by:?}: {table} {told:?}");
    }
}

/// Aim: the admin endpoint answers at a Unix socket without a token, a node that is gone is Down, and a file that is
/// no socket is not touched. Fails if the runtime's TCP type accepts at the endpoint.
#[test]
fn the_admin_endpoint_is_a_unix_socket() {
    let files = Files(tempfile::tempdir().expect("a folder"));
    let (admin, conf) = (files.at("admin.sock"), files.at("edge.yaml"));
    let yaml = format!(
        "admin: {{ bind: \"unix:{}\" }}\n\
         nodes: {{ n: {{ address: \"unix:{}\" }} }}\n\
         listeners: [{{ name: a, bind: [\"unix:{}\"], mode: http, to: n }}]\n",
        admin.display(),
        files.at("none.sock").display(),
        files.at("edge.sock").display(),
    );
    std::fs::write(&conf, yaml).expect("write");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
        command.args(["run", "-c"]).arg(&conf);
        command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    };
    std::fs::write(files.at("edge.sock"), "precious").expect("write");
    let refused = start().wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("the file is no socket"),
        "{said}"
    );
    std::fs::remove_file(files.at("edge.sock")).expect("remove");

    let mut edge = start();
    let by = std::time::Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(files.at("edge.sock")).is_err() || !admin.exists() {
        assert!(std::time::Instant::now() < by, "the edge does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ready = get(
        UnixStream::connect(&admin).expect("connect"),
        "",
        "/healthz",
    );
    assert!(
        ready.starts_with("HTTP/1.1 421"),
        "a name needs a token: {ready}"
    );
    let mut stream = UnixStream::connect(&admin).expect("connect");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("send");
    assert!(
        head(&mut stream)
            .expect("an answer")
            .starts_with("HTTP/1.1 200")
    );
    orders_reach(&admin, &conf);
    let client = UnixStream::connect(files.at("edge.sock")).expect("connect");
    let answer = get(client, "", "/");
    assert!(
        answer.starts_with("HTTP/1.1 503") || answer.starts_with("HTTP/1.1 502"),
        "{answer}"
    );
    let pid = libc::pid_t::try_from(edge.id()).expect("a pid");
    // SAFETY: kill(2) takes two numbers; the process is ours and not yet waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert!(edge.wait().expect("an end").success());
    assert!(
        !admin.exists() && !files.at("edge.sock").exists(),
        "a file is left"
    );
}
