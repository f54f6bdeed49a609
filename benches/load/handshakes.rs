//! Measures TLS handshakes in a closed loop: what a new or a resuming client costs the proxy. Also makes a
//! storm of handshakes during another measurement.
//!
//! In: clients at once (`--count`), `--resume`, window. Out: handshakes a second and per CPU-second of the
//! proxy, failures. Each handshake has its own connection, which ends with the client's close_notify.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::client::{self, PATIENCE};
use crate::{BoxError, Options, host};

/// Time before the window in which every client gets its first ticket.
const WARM_UP: Duration = Duration::from_millis(500);

/// Counts of the loops' handshakes so far.
#[derive(Default)]
pub struct Done {
    good: AtomicUsize,
    resumed: AtomicUsize,
    failed: AtomicUsize,
}

impl Done {
    /// Returns the number of handshakes that succeeded.
    pub fn good(&self) -> usize {
        self.good.load(Ordering::Relaxed)
    }
}

/// Runs the measurement.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let done = Arc::new(Done::default());
    let _loops = start(options, &done);
    sleep(WARM_UP).await;
    let now = || (done.good(), done.resumed.load(Ordering::Relaxed));
    let (begun, before, cpu) = (Instant::now(), now(), options.proxy.map(|p| p.cpu_ns()));
    match options.until_eof {
        true => end_of_input().await,
        false => sleep(options.window).await,
    }
    let cpu = options.proxy.zip(cpu).map(|(p, b)| p.cpu_ns() - b);
    let (after, took) = (now(), begun.elapsed());
    let count = after.0 - before.0;
    Ok(json!({
        "handshakes": count,
        "per_second": count as f64 / took.as_secs_f64(),
        "per_cpu_second": cpu.filter(|ns| *ns > 0).map(|ns| count as f64 * 1e9 / ns as f64),
        "cpu_us_each": cpu.filter(|_| count > 0).map(|ns| ns as f64 / 1000.0 / count as f64),
        "resumed_share": (count > 0).then(|| (after.1 - before.1) as f64 / count as f64),
        "failed": done.failed.load(Ordering::Relaxed),
        "proxy_busy": cpu.map(|ns| ns as f64 / took.as_nanos() as f64),
    }))
}

/// Waits until the parent process closes our standard input.
async fn end_of_input() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = wait.await;
}

/// Starts a storm on its own thread, at the lowest priority, so that the measurement beside it does not
/// wait for the load's own arithmetic.
pub fn storm(options: &Options, clients: usize) -> Arc<Done> {
    let done = Arc::new(Done::default());
    let (told, options) = (
        done.clone(),
        Options {
            count: clients,
            ..options.clone()
        },
    );
    std::thread::spawn(move || {
        // SAFETY: setpriority takes three numbers; 0 is the calling thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let _loops = start(&options, &told);
            std::future::pending::<()>().await;
        });
    });
    done
}

fn start(options: &Options, done: &Arc<Done>) -> Vec<JoinHandle<()>> {
    let one = |_| {
        let (options, done) = (options.clone(), done.clone());
        tokio::spawn(async move {
            let tls = client::connector(options.resume, b"http/1.1");
            loop {
                match shake(&options, &tls).await {
                    Ok(kind) => {
                        done.good.fetch_add(1, Ordering::Relaxed);
                        let resumed = kind == Some(HandshakeKind::Resumed);
                        done.resumed
                            .fetch_add(usize::from(resumed), Ordering::Relaxed);
                    }
                    Err(_) => {
                        done.failed.fetch_add(1, Ordering::Relaxed);
                        // Without a pause a dead proxy would get a million attempts a second.
                        sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        })
    };
    (0..options.count).map(one).collect()
}

async fn shake(options: &Options, tls: &TlsConnector) -> Result<Option<HandshakeKind>, BoxError> {
    let stream = client::tcp(options, None).await?;
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let name = match options.hosts {
        0 => "bench.test".to_owned(),
        hosts => host(TURN.fetch_add(1, Ordering::Relaxed) % hosts),
    };
    let name = ServerName::try_from(name)?;
    let mut stream = timeout(PATIENCE, tls.connect(name, stream)).await??;
    let kind = stream.get_ref().1.handshake_kind();
    stream.shutdown().await?;
    // Tickets arrive before the end, which need not be a close_notify.
    let mut rest = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut rest)).await? {
        Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(e.into()),
        _ => Ok(kind),
    }
}
