//! Calls the admin endpoint of a running edge over plain HTTP.
//!
//! In: a method and a path. Out: JSON, or the edge's refusal in its own words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

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
    /// URL of its admin endpoint.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9900")]
    pub(super) admin: String,
    /// File whose first line is the endpoint's token.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// The admin endpoint of a running edge.
pub(super) struct Edge {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    bearer: Option<String>,
}

impl Edge {
    /// Creates a client for the endpoint at `at`. Errors: a wrong URL, or no token in the file.
    pub(super) fn new(at: &Place) -> Result<Edge, String> {
        let base = at.admin.trim_end_matches('/');
        let url: Result<Uri, _> = base.parse();
        let url = url.map_err(|e| format!("--admin {base}: {e}"))?;
        if url.scheme_str() != Some("http") || url.authority().is_none() {
            return Err(format!(
                "--admin {base}: expected a URL such as `http://127.0.0.1:9900`"
            ));
        }
        let bearer = at.token_file.as_deref().map(token).transpose()?;
        Ok(Edge {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: base.to_owned(),
            bearer,
        })
    }

    /// Sends one request and returns the JSON. Errors: as of [`Edge::body`], or the answer is no JSON.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Value, String> {
        let body = self.body(method, path).await?;
        serde_json::from_slice(&body).map_err(|e| format!("{}: {e}", self.base))
    }

    /// Sends one request and returns the body. Errors: no answer in time, or status and text of a refusal.
    pub(super) async fn body(&self, method: Method, path: &str) -> Result<Bytes, String> {
        let asked = tokio::time::timeout(DEADLINE, self.exchange(method, path)).await;
        let late = |_| format!("{}: no answer within {} s", self.base, DEADLINE.as_secs());
        let (status, body) = asked.map_err(late)??;
        let said = String::from_utf8_lossy(&body);
        match status.is_success() {
            true => Ok(body),
            false if status == StatusCode::UNAUTHORIZED => {
                Err(format!("{}: {}; see --token-file", self.base, said.trim()))
            }
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
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Empty::new()).map_err(|e| failed(&e))?;
        let answer = self.client.request(request).await.map_err(|e| failed(&e))?;
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
