//! Binds Unix sockets, and removes their files when nobody listens there any more.
//!
//! In: the name of a socket, and who may connect. Out: a listening socket. A file that a killed process has left is
//! replaced; one at which a process listens is not. A successor that takes the socket over keeps its file.
//! Source: unix(7); issue 15, 3.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::UnixSocket;

/// Connections that the kernel may queue for us. The kernel lowers the number to its own limit.
const BACKLOG: i32 = 65_535;

/// Set once a successor serves at the sockets: their files are its own then.
static HANDED_OVER: AtomicBool = AtomicBool::new(false);

static FILES: Mutex<BTreeMap<Arc<str>, Weak<SocketFile>>> = Mutex::new(BTreeMap::new());

/// Binds the socket called `name`. The descriptor is returned as that of TCP: everything that is done with it here
/// is the same for both.
///
/// Errors: a process listens there, the file is no socket, or one of the system's.
pub fn bind(name: &str, conf: &UnixSocket) -> io::Result<TcpListener> {
    let user = conf.uid().map_err(io::Error::other)?;
    let group = conf.gid().map_err(io::Error::other)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let path = Path::new(name);
    match name.strip_prefix('@') {
        Some(name) => socket.bind(&SockAddr::unix(format!("\0{name}"))?)?,
        None => {
            clear(path)?;
            socket.bind(&SockAddr::unix(path)?)?;
            // Nobody can connect before listen(2), so the rights are right for the first client.
            std::os::unix::fs::chown(path, user, group)?;
            std::fs::set_permissions(path, Permissions::from_mode(conf.mode.0))?;
        }
    }
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// Removes the socket that a killed process has left at `path`.
///
/// Errors: a process listens there, or the file is no socket.
fn clear(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?.file_type(),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the file is no socket",
        ));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full must not hold up the start.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

/// The file of a socket at which this process listens. Dropping the last one removes the file.
#[derive(Debug)]
pub struct SocketFile(Arc<str>);

impl SocketFile {
    /// Returns the file of the socket called `name`; the same one for all who listen there.
    pub fn of(name: Arc<str>) -> Arc<Self> {
        let mut files = FILES.lock();
        if let Some(file) = files.get(&name).and_then(Weak::upgrade) {
            return file;
        }
        let file = Arc::new(SocketFile(name.clone()));
        files.insert(name, Arc::downgrade(&file));
        file
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let files = FILES.lock();
        // Another one may have been made for the name meanwhile.
        if files
            .get(&self.0)
            .is_none_or(|file| file.strong_count() == 0)
        {
            remove(&self.0);
        }
    }
}

/// Leaves the files to a successor, which serves at the sockets from now on.
pub fn hand_over() {
    HANDED_OVER.store(true, Ordering::SeqCst);
}

/// Removes the files of all sockets, at the end of the process.
pub fn remove_all() {
    FILES.lock().keys().for_each(|name| remove(name));
}

fn remove(name: &str) {
    let is_socket = || std::fs::symlink_metadata(name).is_ok_and(|m| m.file_type().is_socket());
    if name.starts_with('/') && !HANDED_OVER.load(Ordering::SeqCst) && is_socket() {
        // Without the right to, it is left for the next start, which replaces it.
        let _ = std::fs::remove_file(name);
    }
}
