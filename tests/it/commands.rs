//! The commands that an operator types: which file they read, what they print, and their exit codes.
//!
//! In: command lines of the real program. Out: standard output, standard error, exit codes.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

/// Files that can be read once.
mod pipes;

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

/// Aim: `check` looks names up, and asks the store, with `--online` only. Fails if one that is away goes unnoticed, or if the
/// check of a file waits for DNS by itself. Source: issue 15 §3.
#[test]
fn names_are_looked_up_on_demand() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    // Nothing answers at that port, so the name has no address; without `--online` nobody asks.
    let named = WARNED
        .replace("127.0.0.1:2", "push.internal:80")
        .replace("secure: true", "");
    let resolvers = "resolvers: { addresses: [127.0.0.1:1], timeout: 50ms }\n";
    let store = "state: { redis: { url: redis://127.0.0.1:1 } }\n";
    std::fs::write(at.join("named.yaml"), named + resolvers + store).expect("a file");
    let offline = pushgate(at, &["check", "--strict", "named.yaml"]);
    assert_eq!(offline.status.code(), Some(0), "{}", err(&offline));
    let online = err(&pushgate(at, &["check", "--online", "named.yaml"]));
    let place = "named.yaml:1:16: nodes.n1.address: warning: `push.internal:80` has no address now";
    assert!(online.starts_with(place), "{online}");
    assert!(
        online.contains("state.redis.url: warning: redis://127.0.0.1:1: "),
        "{online}"
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
        err(&refused).contains("see --token-file and -c"),
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

/// The edge of the tests below, with one more key at the top.
fn one_node(top: &str) -> String {
    format!(
        "{top}\nnodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\nlisteners: [{{ name: push, bind: [200.0.0.10:80], mode: http, to: n1 }}]\n"
    )
}

/// Aim: a reload waits for its result, and names the changed keys that wait for a restart, in the answer, the log
/// and the metric. systemd is told of it. Fails if a key is left out, if a refused file is a success, or if systemd
/// cannot pair the end of a reload with its begin. Source: issue 15 §10; sd_notify(3).
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_tells_its_result() {
    let block = Block::claim();
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    systemd
        .set_read_timeout(Some(crate::DEADLINE))
        .expect("a deadline");
    let env = [
        ("NOTIFY_SOCKET", path.to_str().expect("a path")),
        ("WATCHDOG_USEC", "400000"),
    ];
    let edge = Edge::start_with(&block, &one_node(""), &env).await;
    let heard = |words: &[&str]| {
        let mut buffer = [0; 4096];
        loop {
            let length = systemd.recv(&mut buffer).expect("a word to systemd");
            let said = String::from_utf8_lossy(&buffer[..length]);
            if words.iter().all(|word| said.contains(word)) {
                return;
            }
        }
    };
    heard(&[
        "READY=1",
        "MAINPID=",
        "STATUS=serving at 1 addresses, 1 nodes",
    ]);
    heard(&["WATCHDOG=1"]);
    heard(&["WATCHDOG=1"]);

    let file = edge.path().display().to_string();
    let changed =
        one_node("max_connections: 77\ndrain_deadline: 1m\nlog: { access: stdout, query: true }");
    edge.rewrite(&block, &changed);
    let done = pushgate(dir.path(), &["reload", "-c", &file]);
    let waiting = "changes of these keys wait for a restart: log.query, max_connections\n";
    assert_eq!(out(&done), format!("loaded\n{waiting}"), "{}", err(&done));
    assert_eq!(edge.metric("pushgate_config_restart_keys").await, 2.0);
    edge.wait_log("wait for a restart: log.query, max_connections")
        .await;
    heard(&["RELOADING=1", "MONOTONIC_USEC="]);
    heard(&["READY=1", "STATUS=configuration reloaded"]);

    let broken = changed.replace("max_connections: 77", "max_connections: 0");
    edge.rewrite(&block, &broken);
    let refused = pushgate(dir.path(), &["reload", "-c", &file]);
    assert_eq!(refused.status.code(), Some(1), "{}", out(&refused));
    assert!(
        err(&refused).contains("max_connections: found `0`"),
        "{}",
        err(&refused)
    );
    heard(&["READY=1", "STATUS=reload failed"]);

    edge.rewrite(&block, &one_node(""));
    let back = pushgate(dir.path(), &["reload", "-c", &file]);
    assert_eq!(out(&back), "loaded\n", "{}", err(&back));
    assert_eq!(edge.metric("pushgate_config_restart_keys").await, 0.0);
}

/// Aim: an edge without an admin endpoint reloads by a signal to the process of `--pid`, or of `pid_file`. Fails if
/// a faulty file gets that far. Source: issue 15 §10.
#[test]
fn without_an_endpoint_a_reload_is_a_signal() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |text: &str| std::fs::write(dir.path().join("e.yaml"), text).expect("a file");
    let reload = |more: &[&str]| {
        let done = pushgate(dir.path(), &[&["reload", "-c", "e.yaml"], more].concat());
        (done.status.code(), out(&done) + &err(&done))
    };
    write(&one_node(""));
    let (code, said) = reload(&[]);
    assert!(
        code == Some(1) && said.contains("neither `admin` nor `pid_file`"),
        "{said}"
    );
    let mut sleep = Command::new("sleep");
    // SAFETY: signal(2) may be called between fork and exec. Under nohup the signal would be ignored.
    unsafe {
        sleep.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        })
    };
    let mut child = sleep.arg("60").spawn().expect("a process");
    let pid = child.id().to_string();
    write(&one_node("threads: 0"));
    let (code, said) = reload(&["--pid", &pid]);
    assert!(
        code == Some(1) && said.contains("threads: found `0`"),
        "{said}"
    );
    assert!(matches!(child.try_wait(), Ok(None)));
    write(&one_node("pid_file: pid"));
    std::fs::write(dir.path().join("pid"), format!("{pid}\n")).expect("a file");
    let (code, said) = reload(&[]);
    assert!(
        code == Some(0) && said.contains("its log has the result"),
        "{said}"
    );
    // `sleep` does not handle the signal.
    let ended = child.wait().expect("a child of ours");
    assert_eq!(ended.signal(), Some(libc::SIGHUP));
}

/// Aim: after TERM the edge says that it is not ready, serves on for `drain_delay`, and then closes. A balancer asks
/// without a token, at an address that serves nothing else. Fails if the listeners close with the first 503, or if the
/// health address needs a token or takes orders. Source: issue 15 §9; field case r10.
#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_notices_before_clients_are_refused() {
    let block = Block::claim();
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let dir = tempfile::tempdir().expect("a folder");
    let token = dir.path().join("admin.token");
    std::fs::write(&token, "s3cret\n").expect("a token");
    let health = block.at("10.0.0.9:9901");
    let top = format!(
        "drain_delay: 700ms\nadmin: {{ bind: {}, token_file: {}, health: {{ bind: {health} }} }}",
        block.admin(),
        token.display()
    );
    let mut edge = Edge::start(&block, &one_node(&top)).await;
    let ask = async |method: &str, path: &str| {
        let mut client = H1::connect(&Dial::plain(health).host("edge.internal")).await;
        client
            .request(method, path, &[("Connection", "close")], b"")
            .await
            .status
    };
    for (method, path, expected) in [
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("POST", "/readyz", 405),
        ("GET", "/api/nodes", 404),
        ("POST", "/api/reload", 404),
        ("GET", "/", 404),
    ] {
        assert_eq!(ask(method, path).await, expected, "{method} {path}");
    }
    // Nor does the admin endpoint want its token for these two.
    for (path, expected) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/healthz", 401),
        ("/metrics", 401),
    ] {
        let mut client = H1::connect(&Dial::plain(block.admin())).await;
        assert_eq!(client.get(path, &[]).await.status, expected, "{path}");
    }
    let document = edge.admin("GET", "/api/openapi.json").await;
    let document: Value = serde_json::from_str(&document.text()).expect("JSON");
    let known = &document["components"]["schemas"]["Node"]["properties"];
    let mut known: Vec<_> = known.as_object().expect("fields").keys().collect();
    known.sort();
    let nodes = edge.nodes().await;
    let mut fields: Vec<_> = nodes[0].as_object().expect("a node").keys().collect();
    fields.sort();
    assert_eq!(fields, known, "fields of a node and of the document");

    edge.signal(libc::SIGTERM);
    crate::deadline("not ready", async {
        while ask("GET", "/readyz").await != 503 {}
    })
    .await;
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    let answer = H1::connect(&dial).await.get("/hello", &[]).await;
    assert_eq!(answer.text(), "n1 1\n");
    assert_eq!(edge.ended().await.code(), Some(0), "{}", edge.log());
    assert!(
        edge.log().contains("the listeners close in 700ms"),
        "{}",
        edge.log()
    );
}
