//! Calls the admin endpoint of a running edge over plain HTTP, by TCP or by a Unix socket.
//!
//! In: a method and a path. Out: JSON, or the edge's refusal in its own words.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pushgate_plugins::unix::{self, Shown, is_unix, name_of};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::cli::conf_file::DEFAULT;
use crate::config::Admin;
use crate::stream::unix::connect;

/// Deadline of one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest body of an answer, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// Where the running edge is, and the form of its answer.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct At {
    #[command(flatten)]
    pub(super) place: Place,
    /// Print the JSON of the answer.
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the running edge is.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Configuration file of the edge, whose `admin:` block has the address and the token file.
    #[arg(short = 'c', long, visible_alias = "conf", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// URL of its admin endpoint, such as `http://127.0.0.1:9900`, or its Unix socket, `unix:/path`.
    #[arg(long, value_name = "URL")]
    pub(super) admin: Option<String>,
    /// File whose first line is the endpoint's token.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// The endpoint that is asked if no file names another.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9900";

impl Place {
    /// Returns the URL and the token file. An option wins over the file's block.
    ///
    /// Errors: the file has no endpoint that can be asked, or a fault in its block; the file given cannot be read. If
    /// the default file is absent, or the operator may not read it, the default endpoint is asked.
    fn resolved(&self) -> Result<(String, Option<PathBuf>), String> {
        let (url, token_file) = match (&self.config, &self.admin) {
            (Some(file), _) => match Admin::of_file(file).map_err(|e| e.to_string())? {
                Some(admin) => (Some(url(file, &admin)), admin.token_file),
                None => (Some(Err(no_block(file))), None),
            },
            (None, None) => match of_default_file()? {
                Some((url, token_file)) => (Some(Ok(url)), token_file),
                None => (None, None),
            },
            (None, Some(_)) => (None, None),
        };
        let url = match (&self.admin, url) {
            (Some(admin), _) => admin.trim_end_matches('/').to_owned(),
            (None, Some(url)) => url?,
            (None, None) => DEFAULT_ADMIN.to_owned(),
        };
        Ok((url, self.token_file.clone().or(token_file)))
    }
}

/// Returns URL and token file of the default file, and says on standard error which edge is asked: the operator named none.
fn of_default_file() -> Result<Option<(String, Option<PathBuf>)>, String> {
    let file = Path::new(DEFAULT);
    if let Err(e) = std::fs::File::open(file)
        && matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
    {
        return Ok(None);
    }
    let admin = Admin::of_file(file).map_err(|e| e.to_string())?;
    let admin = admin.ok_or_else(|| no_block(file))?;
    let url = url(file, &admin)?;
    eprintln!("asking {url}, as {DEFAULT} says");
    Ok(Some((url, admin.token_file)))
}

fn no_block(file: &Path) -> String {
    format!(
        "{}: no block `admin`, so this edge cannot be asked",
        file.display()
    )
}

/// Returns the URL at which an endpoint is reached from this machine. Errors: the kernel picked its port.
fn url(file: &Path, admin: &Admin) -> Result<String, String> {
    let mut address = admin.bind;
    if is_unix(address.ip()) {
        return Ok(Shown(address).to_string());
    }
    if address.port() == 0 {
        let file = file.display();
        return Err(format!(
            "{file}: admin.bind has port 0; name the address by `--admin URL`"
        ));
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address.is_ipv4() {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{address}"))
}

/// The admin endpoint of a running edge.
pub(super) struct Edge {
    /// Host and port, or the name of a Unix socket.
    way: Way,
    base: String,
    bearer: Option<String>,
}

enum Way {
    Tcp { host: String, port: u16 },
    Unix(String),
}

impl Way {
    /// Errors: `base` is neither a URL of plain HTTP nor a Unix socket.
    fn to(base: &str) -> Result<Way, String> {
        let expected = "expected a URL such as `http://127.0.0.1:9900`, or `unix:/path`";
        let wrong = || format!("--admin {base}: {expected}");
        if let Some(socket) = unix::parse(base) {
            let name = socket.ok().and_then(name_of);
            return name
                .map(|name| Way::Unix(name.to_string()))
                .ok_or_else(wrong);
        }
        let url: Result<Uri, _> = base.parse();
        let url = url.map_err(|e| format!("--admin {base}: {e}"))?;
        match (url.scheme_str(), url.host()) {
            (Some("http"), Some(host)) => Ok(Way::Tcp {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: url.port_u16().unwrap_or(80),
            }),
            _ => Err(wrong()),
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        match self {
            Way::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await,
            Way::Unix(name) => connect(name),
        }
    }
}

impl Edge {
    /// Creates a client for the endpoint at `at`. Errors: a wrong URL, no endpoint in the file, no token in its
    /// file.
    pub(super) fn new(at: &Place) -> Result<Edge, String> {
        let (base, token_file) = at.resolved()?;
        let way = Way::to(&base)?;
        let bearer = token_file.as_deref().map(token).transpose()?;
        Ok(Edge { way, base, bearer })
    }

    /// Returns where it asks, and with which token.
    #[cfg(test)]
    pub(super) fn asked(&self) -> String {
        format!(
            "{} {}",
            self.base,
            self.bearer.as_deref().unwrap_or_default()
        )
    }

    /// Sends one request and returns the JSON. Errors: as of [`Edge::body`], or the answer is no JSON.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Value, String> {
        let body = self.body(method, path).await?;
        serde_json::from_slice(&body).map_err(|e| format!("{}: {e}", self.base))
    }

    /// Sends one request and returns the body. Errors: no answer in time, or status and text of a refusal.
    pub(super) async fn body(&self, method: Method, path: &str) -> Result<Bytes, String> {
        self.body_within(DEADLINE, method, path).await
    }

    /// As [`Edge::body`], with a deadline of its own.
    pub(super) async fn body_within(
        &self,
        deadline: Duration,
        method: Method,
        path: &str,
    ) -> Result<Bytes, String> {
        let asked = tokio::time::timeout(deadline, self.exchange(method, path)).await;
        let late = |_| format!("{}: no answer within {} s", self.base, deadline.as_secs());
        let (status, body) = asked.map_err(late)??;
        let said = String::from_utf8_lossy(&body);
        match status.is_success() {
            true => Ok(body),
            false if status == StatusCode::UNAUTHORIZED => Err(format!(
                "{}: {}; see --token-file and -c",
                self.base,
                said.trim()
            )),
            false => Err(format!("{} ({})", said.trim(), status.as_u16())),
        }
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), String> {
        let failed = |e: &dyn std::error::Error| {
            // The outermost error only says `client error (Connect)`; its last source has the cause.
            let mut cause = e;
            while let Some(next) = cause.source() {
                cause = next;
            }
            format!("{}: {cause}", self.base)
        };
        let host = match &self.way {
            Way::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Way::Tcp { host, port } => format!("{host}:{port}"),
            Way::Unix(_) => "localhost".to_owned(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host);
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(&e))?;
        let stream = self.way.connect().await.map_err(|e| failed(&e))?;
        let io = TokioIo::new(stream);
        let (mut send, connection) = http1::handshake(io).await.map_err(|e| failed(&e))?;
        // Ends when `send` is dropped and the answer is read.
        tokio::spawn(connection);
        let answer = send.send_request(request).await.map_err(|e| failed(&e))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| format!("{}: {e}", self.base))?;
        Ok((head.status, body.to_bytes()))
    }
}

fn token(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let first = text.lines().next().map(str::trim).unwrap_or_default();
    match first.is_empty() {
        true => Err(format!(
            "{}: the first line is empty; expected the admin token",
            file.display()
        )),
        false => Ok(format!("Bearer {first}")),
    }
}
