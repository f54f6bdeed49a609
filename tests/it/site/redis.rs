//! A redis-server on an address of its own, without persistence. `PUSHGATE_TEST_STORE=valkey` takes a valkey-server.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::deadline;

/// A running redis-server; dropping it ends the process.
pub struct Redis {
    child: Child,
    at: SocketAddr,
    more: Vec<String>,
}

impl Redis {
    /// Starts it, and waits until it accepts.
    pub async fn start(at: SocketAddr) -> Redis {
        Redis::start_with(at, &[]).await
    }

    /// As [`Redis::start`], with more arguments.
    pub async fn start_with(at: SocketAddr, more: &[&str]) -> Redis {
        let more: Vec<String> = more.iter().map(|&m| m.to_owned()).collect();
        let redis = Redis {
            child: spawn(at, &more),
            at,
            more,
        };
        redis.ready().await;
        redis
    }

    /// Starts a Sentinel with this file, which it rewrites.
    pub async fn sentinel(at: SocketAddr, conf: &Path) -> Redis {
        let child = quiet(program("server").arg(conf).arg("--sentinel"));
        let sentinel = Redis {
            child,
            at,
            more: Vec::new(),
        };
        sentinel.ready().await;
        sentinel
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.at)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty.
    pub async fn again(&mut self) {
        self.kill();
        self.child = spawn(self.at, &self.more);
        self.ready().await;
    }

    /// Stops it (SIGSTOP), or lets it go on.
    pub fn pause(&self, paused: bool) {
        let signal = if paused { "-STOP" } else { "-CONT" };
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status();
        assert!(done.expect("kill runs").success());
    }

    /// Asks it by redis-cli; returns the lines of the answer.
    pub fn ask(&self, words: &[&str]) -> Vec<String> {
        let (ip, port) = (self.at.ip().to_string(), self.at.port().to_string());
        let cli = program("cli")
            .args(["-h", &ip, "-p", &port])
            .args(words)
            .output();
        let text = String::from_utf8(cli.expect("redis-cli is installed").stdout);
        text.expect("UTF-8").lines().map(str::to_owned).collect()
    }

    async fn ready(&self) {
        deadline("redis-server to accept", async {
            while TcpStream::connect(self.at).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program of the store called `what`.
fn program(what: &str) -> Command {
    let store = std::env::var("PUSHGATE_TEST_STORE").unwrap_or("redis".to_owned());
    Command::new(format!("{store}-{what}"))
}

fn spawn(at: SocketAddr, more: &[String]) -> Child {
    let (ip, port) = (at.ip().to_string(), at.port().to_string());
    let args = [
        "--bind",
        &ip,
        "--port",
        &port,
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        "/tmp",
        "--repl-diskless-sync-delay",
        "0",
    ];
    quiet(program("server").args(args).args(more))
}

fn quiet(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
