//! A configuration in several files, with variables of the environment.
//!
//! In: a running edge, whose files change. Out: what it serves after a reload, and what a refused one says.
//! Source: issue 15, 3.

use std::ffi::CString;
use std::time::Duration;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

const YAML: &str = "
threads: ${THREADS:-1}
nodes:
  n1: { address: \"${FIRST}\" }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: n1 }
";

/// Aim: a reload puts the files of an included folder in force, refuses all of them for one fault, names its file,
/// and a file that does not answer stops nothing. Fails if the program runs the first file as it stands, or if a
/// file is read on a thread that serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_all_files_and_the_environment() {
    let block = Block::claim();
    let at = block.at("10.0.0.1:8080");
    let _node = Node::start("n1", at).await;
    let first = at.to_string();
    let edge = Edge::start_with(&block, YAML, &[("FIRST", &first)]).await;
    let get = async |vip: &str| {
        let mut client = H1::connect(&Dial::plain(block.at(vip))).await;
        client.get("/hello", &[]).await.status
    };
    assert_eq!(get("200.0.0.10:80").await, 200);

    let path = edge.path();
    let folder = path.parent().expect("a folder").join("conf.d");
    std::fs::create_dir(&folder).expect("a folder");
    let more = folder.join("more.yaml");
    let bind = block.at("200.0.0.20:80");
    let text =
        format!("listeners:\n  - {{ name: more, bind: [\"{bind}\"], mode: http, to: n1 }}\n");
    std::fs::write(&more, &text).expect("write");
    edge.rewrite(&block, &format!("include: [conf.d]\n{YAML}"));
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    assert_eq!(get("200.0.0.20:80").await, 200);

    let wrong = text.replace("to: n1", "to: \"${SECOND}\"");
    std::fs::write(&more, wrong).expect("write");
    let refused = edge.admin("POST", "/api/reload").await;
    assert_eq!(refused.status, 422);
    let said = refused.text();
    let words = "conf.d/more.yaml:2:";
    assert!(
        said.contains(words) && said.contains("`SECOND` is not set"),
        "{said}"
    );
    assert_eq!(get("200.0.0.20:80").await, 200);

    std::fs::remove_file(&more).expect("remove");
    let fifo = CString::new(more.into_os_string().into_encoded_bytes()).expect("a path");
    // SAFETY: mkfifo(3) reads the one string given.
    let rc = unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    let mut operator = H1::connect(&Dial::plain(block.admin())).await;
    let sent = operator.send("POST", "/api/reload", &[], b"").await;
    sent.expect("send");
    // Bounded wait: the reload does not answer in 100 ms.
    let waited = tokio::time::timeout(Duration::from_millis(100), operator.head()).await;
    assert!(waited.is_err(), "the reload hangs");
    assert_eq!(get("200.0.0.20:80").await, 200);
}
