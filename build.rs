//! Tells the program what it is built from: the commit, and the version of Pingora.
//!
//! In: the repository and `Cargo.lock`. Out: variables for the compiler. Without a repository there is no
//! commit. A build for development gets none either, because each commit would compile everything again.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let pingora = version_of("pingora", &lock).unwrap_or("unknown");
    println!("cargo::rustc-env=PUSHGATE_PINGORA={pingora}");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release")
        && let Some(commit) = commit()
    {
        println!("cargo::rustc-env=PUSHGATE_COMMIT={commit}");
    }
}

/// Returns the version of a package in the text of a lock file.
fn version_of<'a>(name: &str, lock: &'a str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}

/// Returns the commit of this folder's own repository, and asks for a new build at the next commit. A
/// tarball that lies inside another repository has none.
fn commit() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = Path::new(".").canonicalize().ok()?;
    if Path::new(&top).canonicalize().ok()? != here {
        return None;
    }
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// Returns what a command of git prints; `None`: no git, no repository.
fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    (out.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
