//! Binary upgrade: the running process hands its listening sockets and its state to a
//! successor, and then drains.
//!
//! In: `upgrade_socket`, a Unix socket that only its owner may reach. Out: sockets for a successor that has
//! not bound anything yet; for its predecessor, the moment to stop accepting. No client is refused, because
//! each listening socket stays open throughout. Until the successor serves, any failure leaves the
//! predecessor unchanged. Source: FAULTS D69; docs/operations.md, "Changing the program".

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use sendfd::{RecvWithFd, SendWithFd};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use crate::control::Running;
use crate::control::handover::HandoverState;
use crate::control::sockets::Sockets;
use crate::listener::unix;

/// Version of the handover protocol; another one is refused before anything is taken.
const VERSION: u32 = 1;
/// Descriptors in one message; the kernel accepts 253.
const BATCH: usize = 64;
/// Most bytes of the handover without the sockets: enough for some nine million sticky addresses.
const MAX_BYTES: u64 = 512 << 20;
/// Deadline of each step of the handover, except the successor's start.
const STEP: Duration = Duration::from_secs(10);
/// Deadline for the successor to load, check its nodes and serve.
const START: Duration = Duration::from_secs(120);

/// From the successor: it serves, so the predecessor may stop.
const SERVING: u8 = b's';
/// From the predecessor: it stops accepting.
const LEAVING: u8 = b'l';
/// From the predecessor: it has waited too long and goes on, so the successor must end.
const STAYING: u8 = b'n';

/// The message that precedes the descriptors.
#[derive(Deserialize, Serialize)]
struct Handover {
    /// The configured address of each descriptor, in the order they are sent.
    addresses: Vec<SocketAddr>,
    state: HandoverState,
}

/// The running process, as its successor sees it.
pub struct Predecessor {
    /// Its listening sockets.
    pub sockets: Sockets,
    /// Its state.
    pub state: HandoverState,
    stream: UnixStream,
}

impl Predecessor {
    /// Takes over sockets and state from the process that listens at `path`, which goes on serving. It must run
    /// as this process's user, as root, or as `user`, which this process is to become.
    ///
    /// Errors: no process listens there, or it belongs to another user, speaks another
    /// version, or breaks off.
    pub fn at(path: &Path, user: Option<u32>) -> Result<Self, String> {
        let told =
            |what: &str, e: &dyn std::fmt::Display| format!("{}: {what}: {e}", path.display());
        let mut stream = UnixStream::connect(path)
            .map_err(|e| told("no running process to take over from", &e))?;
        let owner = std::fs::symlink_metadata(path).map(|meta| meta.uid());
        let owner = owner.map_err(|e| told("cannot look at it", &e))?;
        let peer = socket_peercred(&stream).map_err(|e| told("whose process it is", &e))?;
        // Its keys would sign cookies, so the keys of a stranger are worse than none.
        for uid in [owner, peer.uid.as_raw()] {
            let own = rustix::process::geteuid().as_raw();
            if uid != 0 && uid != own && Some(uid) != user {
                let why = format!("it belongs to user {uid}, expected user {own} or root");
                return Err(told("refused to take over", &why));
            }
        }
        let taken = (|| {
            stream.set_read_timeout(Some(STEP))?;
            stream.set_write_timeout(Some(STEP))?;
            let handover = receive(&mut stream)?;
            let sockets = receive_sockets(&mut stream, &handover.addresses)?;
            io::Result::Ok((sockets, handover.state))
        })();
        let (sockets, state) =
            taken.map_err(|e| told("handover from the running process failed", &e))?;
        Ok(Predecessor {
            sockets,
            state,
            stream,
        })
    }

    /// Reports that this process serves, so that the predecessor stops accepting. Blocks for 10 s at most.
    /// Returns the stream, which ends with the predecessor.
    ///
    /// Errors: the predecessor waited too long and goes on. If it is gone, that is no error.
    pub fn relieve(mut self) -> Result<UnixStream, String> {
        let mut word = [0];
        let heard = self.stream.write_all(&[SERVING]);
        match heard.and_then(|()| self.stream.read_exact(&mut word)) {
            Ok(()) if word[0] == STAYING => {
                Err("the running process waited too long for this one and goes on".into())
            }
            Ok(()) => Ok(self.stream),
            Err(e) => {
                log::warn!("the predecessor ended before it was relieved: {e}; serving without it");
                Ok(self.stream)
            }
        }
    }
}

/// Whether a process lives that offers its sockets at `path`.
pub fn is_offered(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Offers sockets and state at `path` to the first successor that comes to serve; then notifies `running` and
/// stops offering. It also stops when a drain begins. A successor that fails changes nothing.
///
/// Errors: the socket cannot be created, so no upgrade is possible.
pub fn offer(path: PathBuf, running: Arc<Running>) -> io::Result<()> {
    // Made beside it and renamed, so that nobody can connect before it has its mode. It replaces what a process
    // that was killed has left, or the socket of the predecessor just relieved.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, &path)?;
    tokio::spawn(async move {
        let _stream = loop {
            let handed_over = tokio::select! {
                handed_over = hand_over(&socket, &running) => handed_over,
                () = running.drains() => {
                    // Another process may start while this one drains.
                    let _ = std::fs::remove_file(&path);
                    return;
                }
            };
            match handed_over {
                Ok(stream) => break stream,
                Err(e) => {
                    log::error!(
                        "upgrade: the successor did not take over, this process goes on: {e}"
                    )
                }
            }
        };
        running.leave_rebalances();
        unix::hand_over();
        running.relieved.notify_one();
        // Keeps the stream open: the successor learns from its end that this process has ended.
        std::future::pending::<()>().await;
    });
    Ok(())
}

async fn hand_over(socket: &UnixListener, running: &Arc<Running>) -> io::Result<UnixStream> {
    let (stream, _) = socket.accept().await?;
    let peer = stream.peer_cred()?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != own && peer.uid() != 0 {
        let why = format!(
            "refused to user {}, expected user {own} or root",
            peer.uid()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    log::info!(
        "upgrade: handing over to process {}",
        peer.pid().unwrap_or_default()
    );
    let stream = stream.into_std()?;
    let running = running.clone();
    // On a thread for blocking calls, because a descriptor belongs to the byte it was sent with.
    let given = tokio::task::spawn_blocking(move || give(stream, &running));
    given.await.map_err(io::Error::other)?
}

fn give(mut stream: UnixStream, running: &Running) -> io::Result<UnixStream> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(STEP))?;
    let (addresses, sockets): (Vec<_>, Vec<_>) = running.sockets()?.into_iter().unzip();
    let handover = Handover {
        addresses,
        state: running.handover_state(),
    };
    let bytes = rmp_serde::to_vec(&handover).map_err(io::Error::other)?;
    stream.write_all(&VERSION.to_be_bytes())?;
    stream.write_all(&(bytes.len() as u64).to_be_bytes())?;
    stream.write_all(&bytes)?;
    for batch in sockets.chunks(BATCH) {
        let descriptors: Vec<RawFd> = batch.iter().map(AsRawFd::as_raw_fd).collect();
        stream.send_with_fd(&[0], &descriptors)?;
    }
    stream.set_read_timeout(Some(START))?;
    let mut word = [0];
    if let Err(e) = stream.read_exact(&mut word) {
        let _ = stream.write_all(&[STAYING]);
        return Err(e);
    }
    let _ = stream.write_all(&[LEAVING]);
    Ok(stream)
}

/// Waits for the end of the other process, by the end of the stream between the two.
pub async fn ended(stream: UnixStream) {
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixStream::from_std(stream));
    if let Ok(mut stream) = stream {
        // The other process sends nothing more, so an error is an end too.
        let _ = stream.read(&mut [0]).await;
    }
}

fn receive(stream: &mut UnixStream) -> io::Result<Handover> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let (mut version, mut length) = ([0; 4], [0; 8]);
    stream.read_exact(&mut version)?;
    match u32::from_be_bytes(version) {
        VERSION => {}
        other => {
            return Err(invalid(format!(
                "handover version {other}, expected {VERSION}: restart instead of upgrading"
            )));
        }
    }
    stream.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    if length > MAX_BYTES {
        return Err(invalid(format!(
            "{length} bytes, expected at most {MAX_BYTES}"
        )));
    }
    let mut bytes = Vec::new();
    stream.take(length).read_to_end(&mut bytes)?;
    rmp_serde::from_slice(&bytes).map_err(|e| invalid(e.to_string()))
}

fn receive_sockets(stream: &mut UnixStream, addresses: &[SocketAddr]) -> io::Result<Sockets> {
    let mut sockets = HashMap::new();
    for batch in addresses.chunks(BATCH) {
        let mut descriptors = [-1; BATCH];
        let (bytes, n) = stream.recv_with_fd(&mut [0], &mut descriptors)?;
        // SAFETY: the kernel has just created these descriptors for this process; nothing else owns them.
        let owned = descriptors[..n]
            .iter()
            .map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
        let owned: Vec<OwnedFd> = owned.collect();
        if bytes == 0 || n != batch.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{n} sockets, expected {}", batch.len()),
            ));
        }
        for (address, fd) in batch.iter().zip(owned) {
            SockRef::from(&fd).set_cloexec(true)?;
            let socket = TcpListener::from(fd);
            socket.set_nonblocking(true)?;
            sockets.insert(*address, socket);
        }
    }
    Ok(sockets)
}
