//! Binary upgrade: the running process hands its listening sockets, and what it must not forget,
//! to its successor, and then drains.
//!
//! In: `upgrade_socket`, a Unix socket only its owner may reach. Out: sockets for a successor that
//! has not bound anything yet; for its predecessor the moment to stop accepting. No client is
//! refused, because each listening socket stays open throughout. Until the successor serves, any
//! failure leaves the predecessor as it was. Source: FAULTS D69; DESIGN §10.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sendfd::{RecvWithFd, SendWithFd};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use crate::control::Running;
use crate::control::handover::HandoverState;
use crate::control::running::Sockets;

/// Version of what is said below; another one is refused before anything is taken.
const VERSION: u32 = 1;
/// Descriptors in one message; the kernel takes 253.
const BATCH: usize = 64;
/// Most bytes of what is handed over besides the sockets: some nine million sticky addresses.
const MAX_BYTES: u64 = 512 << 20;
/// Time for each step of the conversation but the successor's start.
const STEP: Duration = Duration::from_secs(10);
/// Time a successor has to load, check its nodes and serve.
const START: Duration = Duration::from_secs(120);

/// The successor serves: the predecessor may stop.
const SERVING: u8 = b's';
/// The predecessor stops accepting.
const LEAVING: u8 = b'l';
/// The predecessor has waited too long and goes on; the successor must end.
const STAYING: u8 = b'n';

/// What goes from process to process, in front of the descriptors.
#[derive(Deserialize, Serialize)]
struct Handover {
    /// What each descriptor was asked to bind, in the order they are sent.
    addresses: Vec<SocketAddr>,
    state: HandoverState,
}

/// The process that runs, as its successor sees it.
pub struct Predecessor {
    /// Its listening sockets.
    pub sockets: Sockets,
    /// What it remembers.
    pub state: HandoverState,
    stream: UnixStream,
}

impl Predecessor {
    /// Takes sockets and memory over from the process that listens at `path`. It goes on serving.
    ///
    /// Errors: nobody listens there, it belongs to another user, speaks another version, or breaks off.
    pub fn at(path: &Path) -> Result<Self, String> {
        let told =
            |what: &str, e: &dyn std::fmt::Display| format!("{}: {what}: {e}", path.display());
        let mut stream = UnixStream::connect(path)
            .map_err(|e| told("no running process to take over from", &e))?;
        let taken = (|| {
            stream.set_read_timeout(Some(STEP))?;
            stream.set_write_timeout(Some(STEP))?;
            let handover = receive(&mut stream)?;
            let sockets = receive_sockets(&mut stream, &handover.addresses)?;
            io::Result::Ok((sockets, handover.state))
        })();
        let (sockets, state) =
            taken.map_err(|e| told("the running process hands nothing over", &e))?;
        Ok(Predecessor {
            sockets,
            state,
            stream,
        })
    }

    /// Says that this process serves; the predecessor stops accepting. Blocks for 10 s at most. The stream
    /// that is left ends with the predecessor.
    ///
    /// Errors: it waited too long and goes on by itself. If it is gone, all is well.
    pub fn relieve(mut self) -> Result<UnixStream, String> {
        let mut word = [0];
        let heard = self.stream.write_all(&[SERVING]);
        match heard.and_then(|()| self.stream.read_exact(&mut word)) {
            Ok(()) if word[0] == STAYING => {
                Err("the process to take over from has waited too long and goes on".into())
            }
            Ok(()) => Ok(self.stream),
            Err(e) => {
                log::warn!("the process taken over from is gone: {e}");
                Ok(self.stream)
            }
        }
    }
}

/// Offers sockets and memory at `path` to the first successor that comes to serve; then tells
/// `running` so and ends. A successor that fails changes nothing.
///
/// Errors: the socket cannot be made; upgrades are not possible then.
pub fn offer(path: PathBuf, running: Arc<Running>) -> io::Result<()> {
    // Left by a process that was killed, or by the one we have just relieved.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        let _stream = loop {
            match hand_over(&socket, &running).await {
                Ok(stream) => break stream,
                Err(e) => {
                    log::error!("upgrade: the successor does not serve, this process goes on: {e}")
                }
            }
        };
        running.leave_rebalances();
        running.relieved.notify_one();
        // The successor hears of this process's end by the end of the stream.
        std::future::pending::<()>().await;
    });
    Ok(())
}

async fn hand_over(socket: &UnixListener, running: &Arc<Running>) -> io::Result<UnixStream> {
    let (stream, _) = socket.accept().await?;
    let peer = stream.peer_cred()?;
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    let own = unsafe { libc::geteuid() };
    if peer.uid() != own && peer.uid() != 0 {
        let why = format!("asked for by user {}, expected {own}", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    log::info!(
        "upgrade: handing over to process {}",
        peer.pid().unwrap_or_default()
    );
    let stream = stream.into_std()?;
    let running = running.clone();
    // Blocking calls on a thread of their own: a descriptor belongs to the byte it was sent with.
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

/// Waits for the other process's end, by that of the stream between the two.
pub async fn ended(stream: UnixStream) {
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixStream::from_std(stream));
    if let Ok(mut stream) = stream {
        // Nothing is sent any more: an error is an end as well.
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
                "version {other}, expected {VERSION}: restart instead"
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
        // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
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
