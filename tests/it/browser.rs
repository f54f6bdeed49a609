//! Drives Chromium by WebDriver.
//!
//! In: arguments of the browser, pages. Out: results of scripts in the pages. Needs `chromium` and
//! `chromedriver`; `tests/setup.sh` installs both.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// On a busy two-core machine a page takes seconds. Less than a minute on purpose: the demo's Content-Length
/// stream and the framework's own read timeout could hide a hanging request for that long.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two polls of the page.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A process group that is killed on drop: chromedriver takes its browsers along.
pub struct Group(Child);

impl Group {
    /// Starts `command` as the leader of a new process group.
    pub fn spawn(command: &mut Command) -> Group {
        let child = command.process_group(0).stdout(Stdio::piped()).spawn();
        Group(child.unwrap_or_else(|e| {
            panic!(
                "{:?}: {e}; tests/setup.sh installs what the tests need",
                command.get_program()
            )
        }))
    }

    /// Waits for the first line of standard output that contains `marker`. Returns the text after it, without
    /// surrounding blanks and the full stop.
    pub fn says(&mut self, marker: &str) -> String {
        let said = self.may_say(marker);
        said.unwrap_or_else(|| panic!("it ended without saying {marker:?}"))
    }

    /// As [`Group::says`]; `None` if the output ends without such a line.
    fn may_say(&mut self, marker: &str) -> Option<String> {
        let mut output = BufReader::new(self.0.stdout.take().expect("piped above"));
        let mut line = String::new();
        let found = loop {
            line.clear();
            let n = output.read_line(&mut line).expect("text");
            if n == 0 {
                return None;
            }
            if let Some((_, rest)) = line.split_once(marker) {
                break rest.trim().trim_end_matches('.').to_owned();
            }
        };
        // Read the rest, so that the process never blocks on a full pipe.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Some(found)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = -i32::try_from(self.0.id()).expect("a process id");
        // SAFETY: plain system call; the group is ours and its leader is not reaped yet.
        unsafe { libc::kill(group, libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

/// A browser with one page.
pub struct Browser {
    /// The WebDriver session.
    pub client: Client,
    _driver: Group,
}

/// Starts chromedriver and returns its port. It takes a port for IPv4 and exits if another test uses the same
/// port for IPv6; then it is started again.
fn driver() -> (Group, String) {
    let mut tries = 0..5;
    tries
        .find_map(|_| {
            let mut driver = Group::spawn(Command::new("chromedriver").arg("--port=0"));
            let port = driver.may_say("started successfully on port ")?;
            Some((driver, port))
        })
        .expect("a chromedriver that starts")
}

impl Browser {
    /// Starts a browser; `more` are arguments beyond those that every test needs.
    pub async fn start(more: &[String]) -> Browser {
        let (driver, port) = driver();
        // CI runs as root in a container with a small /dev/shm.
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-proxy-server".to_owned(),
            "--window-size=1100,1100".to_owned(),
        ];
        args.extend_from_slice(more);
        let options = json!({ "args": args });
        let capabilities = [("goog:chromeOptions".to_owned(), options)];
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.into_iter().collect())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromedriver starts a Chromium");
        Browser {
            client,
            _driver: driver,
        }
    }

    /// Starts a browser and opens `url`.
    pub async fn at(url: &str) -> Browser {
        let browser = Browser::start(&[]).await;
        browser.goto(url).await;
        browser
    }

    /// Opens a page.
    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.expect("the page loads");
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        let loaded = tokio::time::timeout(DEADLINE, self.client.refresh()).await;
        loaded
            .expect("the page answers in time")
            .expect("the page loads again");
    }

    /// Returns the result of `script`.
    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        let answer = self.client.execute(script, arguments).await;
        answer.expect("a script's answer")
    }

    /// Runs `script` until its result is `good`, and returns that result.
    pub async fn until(
        &self,
        what: &str,
        script: &str,
        arguments: Vec<Value>,
        good: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let answer = self.run(script, arguments.clone()).await;
            if good(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "waited for {what}: {answer:#}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Closes the browser in order.
    pub async fn close(self) {
        self.client.clone().close().await.expect("the browser ends");
    }
}
