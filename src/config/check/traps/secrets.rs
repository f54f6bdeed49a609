//! Warns of files with secrets that every user of the machine can read.
//!
//! In: the keys that name such files. Out: warnings, each at its place. A file in a folder that others cannot
//! enter is private, whatever its own rights are.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pushgate_plugins::PluginConfig;

use super::super::checker::{Check, steps};
use crate::config::error::echo;
use crate::config::tree::Step;

/// Rights of everybody: to read a file, to enter a folder.
const READ: u32 = 0o004;
const ENTER: u32 = 0o001;

pub(super) fn check(check: &mut Check<'_>) {
    let config = check.config;
    if let Some(file) = config.admin.as_ref().and_then(|a| a.token_file.as_ref()) {
        is_private(check, &steps!["admin", "token_file"], file);
    }
    if let Some(file) = &config.tickets.file {
        is_private(check, &steps!["tickets", "file"], file);
    }
    for (name, certificate) in &config.certificates {
        for (key, file) in [
            ("key", &certificate.key),
            ("keystore", &certificate.keystore),
            ("password_file", &certificate.password_file),
        ] {
            if let Some(file) = file {
                is_private(check, &steps!["certificates", name.as_str(), key], file);
            }
        }
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        for (j, plugin) in listener.plugins.iter().enumerate() {
            if let PluginConfig::StickyCookie(cookie) = plugin
                && let Some(file) = &cookie.key_file
            {
                let at = steps!["listeners", i, "plugins", j, "sticky_cookie", "key_file"];
                is_private(check, &at, Path::new(file));
            }
        }
    }
}

fn is_private(check: &mut Check<'_>, at: &[Step], file: &Path) {
    let path = check.dir.join(file);
    if everybody_can_read(&path) {
        let shown = echo(&path.display().to_string());
        let why = format!("every user of this machine can read `{shown}`");
        let expected = "a file that only its owner and group can read (`chmod o-r`)";
        check.warn(at, &why, expected);
    }
}

/// Whether the rights of a file and of all folders above it let everybody read it.
fn everybody_can_read(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else {
        return false;
    };
    let has = |path: &Path, right: u32| {
        let mode = path.metadata().map(|meta| meta.permissions().mode());
        mode.is_ok_and(|mode| mode & right != 0)
    };
    has(&real, READ) && real.ancestors().skip(1).all(|folder| has(folder, ENTER))
}
