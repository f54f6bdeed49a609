//! Command `reload`: lets a running edge read its file again, and waits for the result.
//!
//! In: the edge's file. Out: what the edge says: which keys wait for a restart, or why it refuses the file. An
//! edge without an admin endpoint gets a signal instead, and only its log has the result.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Edge, Place};
use crate::config::{Admin, Config};

/// Longest wait: a reload makes the first checks of new nodes, and looks their names up.
const PATIENCE: Duration = Duration::from_secs(90);

/// An order to read the file again.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    #[command(flatten)]
    at: Place,
    /// Process that gets HUP if its file has no `admin` block. By default that of `pid_file`.
    #[arg(long, value_name = "NUMBER", requires = "config")]
    pid: Option<i32>,
}

/// Carries the order out and returns what the edge says.
///
/// Errors: the edge cannot be reached or refuses the file, in its own words.
pub async fn reload(what: Reload) -> Result<String, String> {
    if let (Some(file), None) = (&what.at.config, &what.at.admin)
        && Admin::of_file(file).is_ok_and(|admin| admin.is_none())
    {
        return signalled(file, what.pid);
    }
    let edge = Edge::new(&what.at)?;
    let said = edge
        .body_within(PATIENCE, Method::POST, "/api/reload")
        .await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Checks the file, so that a faulty one is told here, and sends HUP.
fn signalled(file: &Path, pid: Option<i32>) -> Result<String, String> {
    let config = Config::load(file).map_err(|faults| faults.to_string())?;
    let pid = match (pid, &config.pid_file) {
        (Some(pid), _) => pid,
        (None, Some(path)) => number(&config.dir.join(path))?,
        (None, None) => {
            let file = file.display();
            return Err(format!(
                "{file}: neither `admin` nor `pid_file`; name the process by `--pid NUMBER`"
            ));
        }
    };
    let process = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
    let process =
        process.ok_or_else(|| format!("--pid {pid}: expected the number of a process"))?;
    kill_process(process, Signal::HUP).map_err(|e| format!("process {pid}: {e}"))?;
    Ok(format!(
        "process {pid} reads the file again; its log has the result\n"
    ))
}

fn number(file: &Path) -> Result<i32, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let expected = || format!("{}: expected the number of a process", file.display());
    text.trim().parse().map_err(|_| expected())
}
