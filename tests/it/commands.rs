//! The commands that an operator types: which file they read, what they print, and their exit codes.
//!
//! In: command lines of the real program. Out: standard output, standard error, exit codes.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

/// Runs the program to its end.
fn pushgate(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
    let command = command.args(args).current_dir(dir).stdin(Stdio::null());
    command.output().expect("the built program starts")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sound, with one warning.
const WARNED: &str = "nodes: { n1: { address: 127.0.0.1:2 } }
listeners:
  - name: push
    bind: [127.0.0.1:80]
    mode: http
    to: n1
    plugins: [{ sticky_cookie: { secure: true } }]
";

/// Aim: `check` has one verdict in each form: text, JSON, the file with every default, `--strict`. Fails if a
/// form names another file or place, or has another exit code. Source: issue 15 §2, §3.
#[test]
fn check_has_one_verdict_in_each_form() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    let write = |name: &str, text: &str| std::fs::write(at.join(name), text).expect("a file");
    write("good.yaml", &WARNED.replace("secure: true", ""));
    write("warned.yaml", WARNED);
    write("bad.yaml", "listeners: 5\nadmin: {}\n");
    for (args, code) in [
        (&["check", "good.yaml"][..], 0),
        (&["check", "-c", "good.yaml"], 0),
        (&["-t", "-c", "good.yaml"], 0),
        (&["check", "--strict", "good.yaml"], 0),
        (&["check", "warned.yaml"], 0),
        (&["check", "--strict", "warned.yaml"], 1),
        (&["check", "--strict", "--json", "warned.yaml"], 1),
        (&["check", "bad.yaml"], 1),
        (&["check", "--json", "bad.yaml"], 1),
        (&["check", "good.yaml", "-c", "good.yaml"], 2),
    ] {
        let done = pushgate(at, args);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {}", err(&done));
    }
    let text = err(&pushgate(at, &["check", "warned.yaml"]));
    let place = "warned.yaml:7:42: listeners[0].plugins[0].sticky_cookie.secure: warning: ";
    assert!(text.starts_with(place), "{text}");

    let json = |file| -> Value {
        let said = out(&pushgate(at, &["check", "--json", file]));
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
    };
    let warned = json("warned.yaml");
    let finding = &warned["findings"][0];
    assert_eq!((&warned["ok"], &warned["nodes"]), (&true.into(), &1.into()));
    assert_eq!(
        (&finding["line"], &finding["column"]),
        (&7.into(), &42.into())
    );
    assert_eq!(finding["severity"], "warning");
    assert_eq!(
        finding["path"],
        "listeners[0].plugins[0].sticky_cookie.secure"
    );
    let bad = json("bad.yaml");
    assert_eq!((&bad["ok"], &bad["nodes"]), (&false.into(), &Value::Null));
    let all = bad["findings"].as_array().expect("a list");
    assert!(
        all.iter().all(|f| f["severity"] == "error") && all.len() >= 2,
        "{bad}"
    );

    let printed = pushgate(at, &["-T", "-c", "warned.yaml"]);
    write("printed.yaml", &out(&printed));
    assert!(
        out(&printed).contains("drain_deadline: 1h"),
        "{}",
        out(&printed)
    );
    let again = pushgate(at, &["check", "printed.yaml"]);
    assert_eq!(again.status.code(), Some(0), "{}", err(&again));

    let version = out(&pushgate(at, &["--version"]));
    assert!(version.contains("\nOpenSSL: "), "{version}");
    let none = err(&pushgate(at, &["check"]));
    assert!(
        none.contains("reading /etc/pushgate/pushgate.yaml"),
        "{none}"
    );
}

/// Aim: an order takes address and token from the edge's own file, although that file has been half edited
/// since. Fails if the command asks the default endpoint, or sends no token. Source: issue 15 §2.
#[tokio::test(flavor = "multi_thread")]
async fn orders_find_the_edge_by_its_file() {
    let block = Block::claim();
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let dir = tempfile::tempdir().expect("a folder");
    let token = dir.path().join("admin.token");
    std::fs::write(&token, "s3cret\n").expect("a token");
    let admin = format!(
        "admin: {{ bind: {}, token_file: {} }}\n",
        block.admin(),
        token.display()
    );
    let yaml = format!(
        "{admin}nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\nlisteners: [{{ name: push, bind: [200.0.0.10:80], mode: http, to: n1 }}]\n"
    );
    let edge = Edge::start(&block, &yaml).await;
    std::fs::write(edge.path(), format!("{admin}nodes: [half edited]\n")).expect("the file");
    let file = edge.path().display().to_string();
    let drained = pushgate(dir.path(), &["drain", "n1", "-c", &file]);
    assert_eq!(out(&drained), "n1 is draining\n", "{}", err(&drained));
    let nodes = pushgate(dir.path(), &["nodes", "--json", "--config", &file]);
    assert!(out(&nodes).contains("\"draining\""), "{}", out(&nodes));
    let refused = pushgate(
        dir.path(),
        &["nodes", "--admin", &format!("http://{}", block.admin())],
    );
    assert_eq!(refused.status.code(), Some(1), "{}", out(&refused));
    assert!(
        err(&refused).contains("see -c and --token-file"),
        "{}",
        err(&refused)
    );
}

/// Aim: `quick` prints a file and serves from it. Fails if the file is not what runs, or comes after the first
/// client. Source: issue 15 §2.
#[tokio::test(flavor = "multi_thread")]
async fn quick_serves_what_it_prints() {
    let block = Block::claim();
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let node = block.at("10.0.0.1:8080").to_string();
    let admin = block.admin().to_string();
    let args = [
        "quick", "--node", &node, "--cookie", "--port", "0", "--admin", &admin,
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let printed = pushgate(dir.path(), &[&args[..], &["--print"]].concat());
    std::fs::write(dir.path().join("saved.yaml"), &printed.stdout).expect("a file");
    let checked = pushgate(dir.path(), &["check", "saved.yaml"]);
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));

    let edge = Edge::quick(&block, &args).await;
    assert!(
        edge.log().contains(out(&printed).trim_end()),
        "{}",
        edge.log()
    );
    let listeners = edge.admin("GET", "/api/listeners").await.text();
    let listeners: Value = serde_json::from_str(&listeners).expect("JSON");
    let bound = listeners[0]["address"]
        .as_str()
        .and_then(|a| a.rsplit_once(':'));
    let (_, port) = bound.expect("an address");
    let dial = Dial::plain(format!("127.0.0.1:{port}").parse().expect("an address"));
    let answer = H1::connect(&dial).await.get("/hello", &[]).await;
    assert_eq!(answer.text(), "n1 1\n");
}
