//! One connection to the store: TCP, TLS, authentication, and the question whether the server is the master.
//!
//! In: the block `state.redis`. Out: a connection on which many questions are under way at once.
//! Source: Redis protocol RESP3; Sentinel clients guide.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::SslConnector;
use openssl::x509::X509VerifyResult;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo, Value, cmd,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_openssl::SslStream;

use super::secrets::Secrets;
use crate::config::{Redis, StoreUrl};

/// Longest time for one server: TCP, TLS, authentication and its role together.
const CONNECT: Duration = Duration::from_secs(3);

/// Carries bytes to the store.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Where what comes unasked goes.
#[derive(Clone)]
pub(super) struct Pushes {
    /// Takes what other edges publish.
    pub sender: Sender<PushInfo>,
    /// Notified when there is no room for more, so that some of it is lost.
    pub lost: Arc<Notify>,
}

impl Pushes {
    fn take(&self, push: PushInfo) -> Result<(), ()> {
        self.sender
            .try_send(push)
            .map_err(|_| self.lost.notify_one())
    }
}

/// A connection to a master.
pub(super) struct Connected {
    /// Asks; may be cloned.
    pub connection: MultiplexedConnection,
    /// Moves the bytes; ends with the connection.
    pub driver: JoinSet<()>,
    /// Where it leads to.
    pub server: String,
}

/// Connects to the first server of `conf` that is a master. `pushes` gets what comes unasked.
///
/// Errors: what each server said.
pub(super) async fn connect(
    conf: &Redis,
    secrets: &Secrets,
    pushes: &Pushes,
) -> Result<Connected, String> {
    let mut said = Vec::new();
    for url in &conf.url.0 {
        let tried = async {
            match &conf.sentinel {
                None => server(url, secrets, Some(pushes)).await,
                Some(name) => {
                    let master = ask_sentinel(url, secrets, name).await?;
                    server(&master, secrets, Some(pushes)).await
                }
            }
        };
        match timeout(CONNECT, tried).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(why)) => said.push(format!("{url}: {why}")),
            Err(_) => said.push(format!("{url}: no answer within {} s", CONNECT.as_secs())),
        }
    }
    Err(said.join("; "))
}

/// Connects once to the store of `conf`, whose relative paths are below `dir`, and leaves it.
///
/// Errors: what each server said, or a file that cannot be used.
pub async fn probe(conf: &Redis, dir: &Path) -> Result<(), String> {
    let secrets = Secrets::read(conf, dir)?;
    let pushes = Pushes {
        sender: channel(1).0,
        lost: Arc::default(),
    };
    connect(conf, &secrets, &pushes).await.map(drop)
}

/// Connects to `url` and asks whether it is a master, unless it is a Sentinel (without `pushes`).
async fn server(
    url: &StoreUrl,
    secrets: &Secrets,
    pushes: Option<&Pushes>,
) -> Result<Connected, String> {
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await;
    let tcp = tcp.map_err(|e| e.to_string())?;
    // A question waits for nothing.
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let stream: Box<dyn Bytes> = match &secrets.connector {
        Some(connector) if url.tls => Box::new(handshake(connector, &url.host, tcp).await?),
        _ => Box::new(tcp),
    };
    // Questions have deadlines of their own.
    let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        // A user needs a right more for it.
        .set_skip_set_lib_name();
    if let Some(pushes) = pushes {
        let pushes = pushes.clone();
        config = config.set_push_sender(move |push| pushes.take(push));
        info = info.set_db(url.database.into());
        if let Some(user) = &url.user {
            info = info.set_username(user);
        }
        if let Some(password) = &secrets.password {
            info = info.set_password(password);
        }
    }
    let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (mut connection, bytes) = made.map_err(|e| e.to_string())?;
    let mut driver = JoinSet::new();
    driver.spawn(bytes);
    if pushes.is_some() {
        let role = connection.send_packed_command(&cmd("ROLE")).await;
        if !is_master(&role.map_err(|e| e.to_string())?) {
            return Err("is no master".to_owned());
        }
    }
    Ok(Connected {
        connection,
        driver,
        server: url.to_string(),
    })
}

async fn handshake(
    connector: &SslConnector,
    host: &str,
    tcp: TcpStream,
) -> Result<SslStream<TcpStream>, String> {
    let ssl = connector.configure().and_then(|c| c.into_ssl(host));
    let stream = ssl.and_then(|ssl| SslStream::new(ssl, tcp));
    let mut stream = stream.map_err(|e| e.to_string())?;
    let done = Pin::new(&mut stream).connect().await;
    done.map_err(|e| match stream.ssl().verify_result() {
        X509VerifyResult::OK => format!("TLS: {e}"),
        bad => format!("TLS: {}", bad.error_string()),
    })?;
    Ok(stream)
}

/// Whether the answer to ROLE is that of a master.
fn is_master(role: &Value) -> bool {
    let word = match role {
        Value::Array(parts) => parts.first(),
        _ => None,
    };
    match word {
        Some(Value::BulkString(word)) => word == b"master",
        Some(Value::SimpleString(word)) => word == "master",
        _ => false,
    }
}

/// Asks the Sentinel at `url` for the address of the master `name`.
async fn ask_sentinel(url: &StoreUrl, secrets: &Secrets, name: &str) -> Result<StoreUrl, String> {
    let mut sentinel = server(url, secrets, None).await?;
    let mut ask = Cmd::new();
    ask.arg("SENTINEL").arg("get-master-addr-by-name").arg(name);
    let answer: Option<(String, u16)> = ask
        .query_async(&mut sentinel.connection)
        .await
        .map_err(|e| e.to_string())?;
    let (host, port) = answer.ok_or_else(|| format!("knows no master `{name}`"))?;
    Ok(StoreUrl {
        host,
        port,
        ..url.clone()
    })
}
