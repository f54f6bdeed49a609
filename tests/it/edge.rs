//! The program under test: started from a configuration, asked through its admin endpoint, ended by pid.
//!
//! In: YAML with the guide's addresses. Out: a ready process, its access lines, metrics and node states; a
//! panic of the test prints its log.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::client::Dial;
use crate::client::h1::{H1, Response};
use crate::deadline;
use crate::netns::Host;
use crate::vip::Block;

mod starts;

/// Edges with a limit, or in a cgroup.
mod prepared;

/// A running edge; dropping it ends the process.
pub struct Edge {
    child: Child,
    admin: SocketAddr,
    log: Arc<Mutex<String>>,
    access: watch::Receiver<Vec<Value>>,
    /// Bearer token of its admin endpoint.
    token: Option<String>,
    dir: Arc<tempfile::TempDir>,
}

impl Edge {
    /// Starts the edge from `yaml` and waits until it is ready. Addresses in `yaml` are the guide's (see
    /// [`Block::map`]). An admin endpoint and the access log are added if the file has none.
    pub async fn start(block: &Block, yaml: &str) -> Edge {
        Self::start_with(block, yaml, &[]).await
    }

    /// Starts the edge from a file of `conf/`; replaces each `(from, to)` in it first.
    pub async fn file(block: &Block, name: &str, changes: &[(&str, &str)]) -> Edge {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("conf")
            .join(name);
        let mut yaml =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (from, to) in changes {
            assert!(yaml.contains(from), "{name} has no {from:?} to replace");
            yaml = yaml.replace(from, to);
        }
        Self::start(block, &yaml).await
    }

    /// As [`Edge::start`], with environment variables.
    pub async fn start_with(block: &Block, yaml: &str, env: &[(&str, &str)]) -> Edge {
        let dir = tempfile::tempdir().expect("a folder for the configuration");
        let yaml = complete(block, yaml);
        std::fs::write(dir.path().join(FILE), &yaml).expect("write the configuration");
        let mut edge = Self::spawn(Arc::new(dir), block.admin(), token(&yaml), &["run"], env);
        edge.ready().await;
        edge
    }

    /// As [`Edge::start`], but waits only until the admin endpoint listens: the edge may have no nodes yet.
    pub async fn start_unready(block: &Block, yaml: &str) -> Edge {
        let dir = tempfile::tempdir().expect("a folder for the configuration");
        let yaml = complete(block, yaml);
        std::fs::write(dir.path().join(FILE), &yaml).expect("write the configuration");
        let edge = Self::spawn(Arc::new(dir), block.admin(), token(&yaml), &["run"], &[]);
        deadline("the admin endpoint", async {
            while Dial::plain(edge.admin).try_tcp().await.is_err() {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
        edge
    }

    /// Starts another process from the same file that takes over from this one (`-u`).
    pub fn successor(&self) -> Edge {
        self.successor_with(&[])
    }

    /// As [`Edge::successor`], with environment variables.
    pub fn successor_with(&self, env: &[(&str, &str)]) -> Edge {
        let token = self.token.clone();
        Self::spawn(self.dir.clone(), self.admin, token, &["run", "-u"], env)
    }

    /// Starts the edge on `host`, with its admin endpoint on the host's port 9900.
    pub async fn start_on(host: &Host, yaml: &str) -> Edge {
        let dir = tempfile::tempdir().expect("a folder for the configuration");
        let admin = SocketAddr::from((host.there, 9900));
        let secret = dir.path().join("admin.token");
        std::fs::write(&secret, "from outside\n").expect("write the token");
        let secret = secret.display();
        let yaml = format!(
            "{yaml}admin: {{ bind: {admin}, token_file: {secret} }}\nlog: {{ access: stdout }}\n"
        );
        std::fs::write(dir.path().join(FILE), &yaml).expect("write the configuration");
        let mut command = command(dir.path(), &["run"], &[]);
        let child = host.inside(move || command.spawn());
        let mut edge = Self::of(child, Arc::new(dir), admin, token(&yaml));
        edge.ready().await;
        edge
    }

    fn spawn(
        dir: Arc<tempfile::TempDir>,
        admin: SocketAddr,
        token: Option<String>,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Edge {
        let child = command(dir.path(), args, env).spawn();
        Self::of(child, dir, admin, token)
    }

    fn of(
        child: std::io::Result<Child>,
        dir: Arc<tempfile::TempDir>,
        admin: SocketAddr,
        token: Option<String>,
    ) -> Edge {
        let mut child = child.expect("the built program starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (tx, access) = watch::channel(Vec::new());
        let stdout = child.stdout.take().expect("a pipe was asked for");
        collect(stdout, log.clone(), Some(tx));
        let stderr = child.stderr.take().into_iter();
        stderr.for_each(|stderr| collect(stderr, log.clone(), None));
        Edge {
            child,
            admin,
            log,
            access,
            token,
            dir,
        }
    }

    /// Path of its configuration file.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    /// Replaces its configuration file in one step; does not reload.
    pub fn rewrite(&self, block: &Block, yaml: &str) {
        std::fs::write(self.path(), complete(block, yaml)).expect("write the configuration");
    }

    /// Waits until its log contains `words`; polls every millisecond.
    pub async fn wait_log(&self, words: &str) {
        deadline(words, async {
            while !self.log.lock().contains(words) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written to standard output and standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// URL of its admin endpoint.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// Access lines written so far.
    pub fn access(&self) -> Vec<Value> {
        self.access.borrow().clone()
    }

    /// Waits until the access lines satisfy `good`.
    pub async fn wait_access(
        &self,
        what: &str,
        mut good: impl FnMut(&[Value]) -> bool,
    ) -> Vec<Value> {
        let mut rx = self.access.clone();
        let lines = deadline(what, rx.wait_for(|lines| good(lines))).await;
        lines.expect("the edge is running").clone()
    }

    /// Sends a request to the admin endpoint.
    pub async fn admin(&self, method: &str, path: &str) -> Response {
        let mut client = H1::connect(&Dial::plain(self.admin)).await;
        let bearer = format!("Bearer {}", self.token.as_deref().unwrap_or_default());
        let headers = [("Connection", "close"), ("Authorization", &bearer)];
        let sent = if self.token.is_some() { 2 } else { 1 };
        client.request(method, path, &headers[..sent], b"").await
    }

    /// All samples by name with labels, such as `pushgate_flows{pool="push"}`.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.admin("GET", "/metrics").await.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.filter_map(|line| line.rsplit_once(' '));
        pairs
            .filter_map(|(name, v)| Some((name.to_owned(), v.parse().ok()?)))
            .collect()
    }

    /// The sum of a metric over all its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let samples = self.metrics().await;
        let of_name = samples
            .iter()
            .filter(|(key, _)| key.split('{').next() == Some(name));
        of_name.map(|(_, value)| value).sum()
    }

    /// Polls a metric until the sum over its labels is `good`.
    pub async fn wait_metric(&self, name: &str, good: impl Fn(f64) -> bool) {
        deadline(name, async {
            while !good(self.metric(name).await) {
                tokio::time::sleep(POLL).await;
            }
        })
        .await
    }

    /// Answer of `/api/nodes`.
    pub async fn nodes(&self) -> Value {
        let text = self.admin("GET", "/api/nodes").await.text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("/api/nodes: {e}: {text}"))
    }

    /// Polls `/api/nodes` until the answer is `good`; panics after [`crate::DEADLINE`].
    pub async fn wait_nodes(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        deadline(what, async {
            loop {
                let nodes = self.nodes().await;
                if good(&nodes) {
                    return nodes;
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) takes two integers; the pid is that of our child, not yet waited for.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Waits until the process exits.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        deadline("the edge's end", async {
            loop {
                if let Some(status) = child.try_wait().expect("a child of ours") {
                    return status;
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await
    }

    async fn ready(&mut self) {
        let until = Instant::now() + crate::DEADLINE;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the edge ended at start: {status}\n{}", self.log());
            }
            if Dial::plain(self.admin).try_tcp().await.is_ok()
                && self.admin("GET", "/readyz").await.status == 200
            {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!(
            "the edge was not ready in {:?}\n{}",
            crate::DEADLINE,
            self.log()
        );
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        let until = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- log of the edge ---\n{}--- end of the log ---",
                self.log()
            );
        }
    }
}

/// The program with its configuration in `dir`.
fn command(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
    command
        .args(args)
        .arg("-c")
        .arg(dir.join(FILE))
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Adds the sections that every test needs, and maps the addresses.
fn complete(block: &Block, yaml: &str) -> String {
    let mut yaml = block.map(yaml);
    let has = |yaml: &str, key: &str| yaml.lines().any(|line| line.starts_with(key));
    if !has(&yaml, "admin:") {
        yaml += &format!("admin: {{ bind: {} }}\n", block.admin());
    }
    if !has(&yaml, "log:") {
        yaml += "log: { access: stdout }\n";
    }
    yaml
}

/// The admin token, from the file that `yaml` names.
fn token(yaml: &str) -> Option<String> {
    let (_, rest) = yaml.split_once("token_file: ")?;
    let file = rest.split([' ', ',', '}', '\n']).next()?;
    let text = std::fs::read_to_string(file).expect("the token's file");
    text.lines().next().map(str::to_owned)
}

/// Collects lines in a thread, because a test's runtime may be busy or gone.
fn collect(
    from: impl Read + Send + 'static,
    log: Arc<Mutex<String>>,
    access: Option<watch::Sender<Vec<Value>>>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let (Some(access), Ok(value)) = (&access, serde_json::from_str::<Value>(&line)) {
                access.send_modify(|lines| lines.push(value));
            }
            let mut log = log.lock();
            log.push_str(&line);
            log.push('\n');
        }
    });
}

/// Name of the configuration file in its folder.
const FILE: &str = "pushgate.yaml";
/// Pause between two polls of a state that cannot wake us.
const POLL: Duration = Duration::from_millis(10);
/// Time for a clean exit before the edge is killed; live flows would delay it by the drain deadline.
const GRACE: Duration = Duration::from_millis(300);
