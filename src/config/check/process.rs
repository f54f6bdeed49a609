//! Checks what the process itself is given: its upgrade socket, the file with its number, its user, the files for its
//! store.
//!
//! In: keys of the top. Out: faults. Whoever can write in the folder of the upgrade socket could put his own
//! there, and would be asked for the keys of cookies and tickets, or give false ones.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::checker::{Check, steps};
use crate::config::User;
use crate::config::error::echo;
use crate::credentials::{authorities_of, password_in};

/// Rights to write of everybody but the owner.
const OTHERS: u32 = 0o022;

pub(super) fn check(check: &mut Check<'_>) {
    let config = check.config;
    if let Some(path) = &config.upgrade_socket {
        let path = check.dir.join(path);
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mode = folder.metadata().map(|meta| meta.permissions().mode());
        if mode.is_ok_and(|mode| mode & OTHERS != 0) {
            let shown = echo(&folder.display().to_string());
            check.expect(
                &steps!["upgrade_socket"],
                format!("others than its owner can write in `{shown}`"),
                "a folder in which only its owner can write (`chmod go-w`)",
            );
        }
    }
    if let Some(path) = &config.pid_file
        && check.dir.join(path).is_dir()
    {
        let shown = echo(&path.display().to_string());
        let message = format!("`{shown}` is a folder");
        check.expect(&steps!["pid_file"], message, "a file");
    }
    if let Some(state) = &config.state {
        let at = |key: &'static str| steps!["state", "redis", key];
        let password = state.redis.password_file.as_ref();
        if let Some(Err(fault)) = password.map(|file| password_in(&check.dir.join(file))) {
            check.fault(&at("password_file"), fault.to_string());
        }
        let authorities = state.redis.ca_file.as_ref();
        if let Some(Err(fault)) = authorities.map(|file| authorities_of(&check.dir.join(file))) {
            check.fault(&at("ca_file"), fault.to_string());
        }
    }
    if let Some(user) = &config.user
        && User::named(user).is_none()
    {
        check.expect(
            &steps!["user"],
            format!("this machine has no user `{}`", echo(user)),
            "the name of a user",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::config::Config;

    /// Aim: faults of these keys are found at their places. Fails if others may write in the folder.
    #[test]
    fn the_process_is_checked() {
        let dir = tempfile::tempdir().expect("a folder");
        let rest = "nodes: { n: { address: 10.0.0.1:80 } }\n\
                    listeners: [{ name: l, bind: [127.0.0.1:80], mode: http, to: n }]\n";
        for (mode, line, expected) in [
            (0o700, "upgrade_socket: up.sock", ""),
            (0o755, "upgrade_socket: up.sock", ""),
            (0o700, "upgrade_socket: none/up.sock", ""),
            (
                0o775,
                "upgrade_socket: up.sock",
                "1:17: upgrade_socket: others than its owner",
            ),
            (
                0o757,
                "upgrade_socket: up.sock",
                "1:17: upgrade_socket: others than its owner",
            ),
            (
                0o1777,
                "upgrade_socket: up.sock",
                "1:17: upgrade_socket: others than its owner",
            ),
            (0o700, "pid_file: pid", ""),
            (0o700, "pid_file: .", "1:11: pid_file: "),
            (0o700, "user: root", ""),
            (
                0o700,
                "user: no-such-user",
                "1:7: user: this machine has no user",
            ),
        ] {
            std::fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("chmod");
            let parsed = Config::parse(&format!("{line}\n{rest}"), "f", dir.path());
            let said = parsed.map_or_else(|e| e.to_string(), |_| String::new());
            assert_eq!(
                said.is_empty(),
                expected.is_empty(),
                "{line}, {mode:o}: {said}"
            );
            assert!(said.contains(expected), "{line}, {mode:o}: {said}");
        }
    }
}
