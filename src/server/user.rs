//! Gives up the rights of root: the process goes on as the user that the configuration names.
//!
//! In: `user`, once the sockets are bound and the files read. Out: a process that cannot get its rights back.

use std::ffi::CString;
use std::io;

use crate::config::User;

/// Becomes `user`, whose name is `name`; does nothing if this process runs as that user.
///
/// Errors: this process is another user than root, or the system refuses.
pub fn change_to(name: &str, user: User) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    if own == user.uid {
        return Ok(());
    }
    if own != 0 {
        return Err(format!(
            "user: this process runs as user {own}, and only root can become `{name}`"
        ));
    }
    let told = |what: &str| format!("user: cannot become `{name}`: {what}: {}", last());
    let text = CString::new(name).map_err(|e| format!("user: {e}"))?;
    // These calls of the C library change every thread; the system's own would change the calling one.
    // SAFETY: initgroups(3) reads the one string given.
    if unsafe { libc::initgroups(text.as_ptr(), user.gid) } != 0 {
        return Err(told("initgroups"));
    }
    // SAFETY: it takes a number.
    if unsafe { libc::setgid(user.gid) } != 0 {
        return Err(told("setgid"));
    }
    // SAFETY: it takes a number.
    if unsafe { libc::setuid(user.uid) } != 0 {
        return Err(told("setuid"));
    }
    log::info!("running as user {name}");
    Ok(())
}

fn last() -> io::Error {
    io::Error::last_os_error()
}

/// Warns of a process that has all rights and no `user`.
pub fn warn_of_root(user: Option<&str>) {
    if user.is_none() && rustix::process::geteuid().is_root() {
        log::warn!(
            "running as root: whoever finds a fault in this program has the machine; set `user`, or start \
             it as another user with CAP_NET_BIND_SERVICE (conf/pushgate.service)"
        );
    }
}
