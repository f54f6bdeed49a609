//! The conformance tests of h2spec, if the program is installed.
//!
//! In: `PUSHGATE_H2SPEC`, a path, or `h2spec` on the PATH. Out: no failed case. Source: RFC 9113, RFC 7541.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::setup::Setup;

/// Its 147 cases take a second; each that waits in vain for an answer takes two.
const MOST: Duration = Duration::from_secs(120);

/// Aim: all cases of h2spec pass, including the strict ones. Fails if the edge breaks a rule of RFC 9113 that
/// h2spec checks.
#[tokio::test(flavor = "multi_thread")]
async fn h2spec_passes() {
    let Some(program) = program() else {
        eprintln!("skipped the cases of h2spec: it is not installed (README.md, \"Install\")");
        return;
    };
    let setup = Setup::start(1).await;
    let at = setup.tls().to;
    let mut command = Command::new(program);
    command.args([
        "-t",
        "-k",
        "-h",
        &at.ip().to_string(),
        "-p",
        &at.port().to_string(),
        "--strict",
    ]);
    let run = timeout(MOST, command.kill_on_drop(true).output()).await;
    let output = run.expect("h2spec ends in time").expect("h2spec starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" 0 failed"), "{text}");
    // h2spec also reports no failure if it cannot reach the server.
    assert!(
        output.status.success() && !text.contains("0 tests"),
        "{text}"
    );
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PUSHGATE_H2SPEC") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|dir| dir.join("h2spec"));
    found.find(|file| file.is_file())
}
