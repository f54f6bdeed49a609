//! The real clients as processes: options in, their status changes and updates out.
//!
//! In: JSON options of `tests/js/client.js` (Lightstreamer), or of another script there. Out: its events, awaited under a deadline. `tests/npm.sh`
//! installs the library once for each lockfile.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::deadline;

/// A running client; dropping it kills the process.
pub struct Js {
    child: Child,
    stdin: ChildStdin,
    events: watch::Receiver<Vec<Value>>,
}

impl Js {
    /// Starts a client. `ca` is an authority that it trusts besides the usual ones.
    pub async fn start(options: Value, ca: Option<PathBuf>) -> Js {
        Js::run("client.js", options, ca).await
    }

    /// Starts a script of `tests/js`, as [`Js::start`].
    pub async fn run(script: &str, options: Value, ca: Option<PathBuf>) -> Js {
        let modules = install().await;
        let script = format!("{}/tests/js/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("node");
        command
            .arg(script)
            .arg(options.to_string())
            .env("NODE_PATH", modules);
        if let Some(ca) = ca {
            command.env("NODE_EXTRA_CA_CERTS", ca);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .expect("node is installed (`make test` installs it)");
        let stdin = child.stdin.take().expect("a pipe was asked for");
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let (tx, events) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let event = serde_json::from_str(&line)
                    .unwrap_or_else(|_| json!({ "event": "noise", "line": line }));
                tx.send_modify(|events: &mut Vec<Value>| events.push(event));
            }
        });
        Js {
            child,
            stdin,
            events,
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        self.events.borrow().clone()
    }

    /// The events of one kind so far.
    pub fn of(&self, kind: &str) -> Vec<Value> {
        self.events()
            .into_iter()
            .filter(|e| e["event"] == kind)
            .collect()
    }

    /// Waits until the client is in `status`.
    pub async fn status(&mut self, status: &str) {
        self.wait(status, |events| {
            let last = events.iter().rev().find(|e| e["event"] == "status");
            last.is_some_and(|e| e["status"] == status)
        })
        .await;
    }

    /// Waits until `n` more updates have arrived.
    pub async fn updates(&mut self, n: usize) {
        let goal = self.of("update").len() + n;
        self.wait("updates", |events| {
            events.iter().filter(|e| e["event"] == "update").count() >= goal
        })
        .await;
    }

    /// Waits until the events satisfy `good`; after the deadline, panics and prints all of them.
    pub async fn wait(&mut self, what: &str, mut good: impl FnMut(&[Value]) -> bool) {
        let mut events = self.events.clone();
        let told = tokio::time::timeout(crate::DEADLINE, events.wait_for(|e| good(e))).await;
        if !matches!(told, Ok(Ok(_))) {
            drop(told);
            let tail: Vec<_> = self.events().into_iter().rev().take(20).collect();
            panic!("the client did not reach {what}; its last events, newest first: {tail:#?}");
        }
    }

    /// Changes the client's forced transport; the client binds its session again.
    pub async fn transport(&mut self, name: &str) {
        self.command(json!({ "do": "transport", "name": name }))
            .await;
    }

    /// Sends a message and waits until the node has processed it.
    pub async fn message(&mut self, text: &str) {
        self.command(json!({ "do": "message", "text": text })).await;
        self.wait("a message's answer", |events| {
            events
                .iter()
                .any(|e| e["event"] == "message" && e["text"] == text)
        })
        .await;
    }

    /// Connects again, as an application does after error 21.
    pub async fn connect(&mut self) {
        self.command(json!({ "do": "connect" })).await;
    }

    /// Ends the client's session and waits until the process exits.
    pub async fn end(mut self) {
        self.command(json!({ "do": "disconnect" })).await;
        let status = deadline("the client's end", self.child.wait()).await;
        assert!(status.expect("a child that was started").success());
    }

    async fn command(&mut self, command: Value) {
        let line = format!("{command}\n");
        self.stdin
            .write_all(line.as_bytes())
            .await
            .expect("the client reads commands");
    }
}

/// The source text of the web client's library, for a page to load.
pub async fn web_library() -> String {
    let file = install()
        .await
        .join("lightstreamer-client-web/lightstreamer-core.min.js");
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Installs the libraries if necessary and returns their folder.
async fn install() -> PathBuf {
    static DONE: tokio::sync::OnceCell<PathBuf> = tokio::sync::OnceCell::const_new();
    let folder = DONE.get_or_init(|| async {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let folder = target
            .parent()
            .expect("target/tmp has a parent")
            .join("npm");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/npm.sh");
        let status = Command::new(script).arg(&folder).status().await;
        assert!(
            status.expect("tests/npm.sh starts").success(),
            "tests/npm.sh failed"
        );
        folder.join("node_modules")
    });
    folder.await.clone()
}
