//! A WebSocket client over any stream.
//!
//! In: a [`Dial`] and headers. Out: the socket and the head of the 101, or the refusal's status.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Dial, Io};
use crate::deadline;

/// A client's WebSocket.
pub struct Ws {
    /// The socket, for frames that this client has no method for.
    pub socket: WebSocketStream<Box<dyn Io>>,
    /// Head of the 101.
    pub response: Response,
}

/// Connects and upgrades; returns the library's errors (a refusal is `Error::Http`).
pub async fn try_connect(dial: &Dial, path: &str, headers: &[(&str, &str)]) -> Result<Ws, Error> {
    let scheme = if dial.tls.is_some() { "wss" } else { "ws" };
    let mut request = format!("{scheme}://{}{path}", dial.host).into_client_request()?;
    for (key, value) in headers {
        let key: HeaderName = key.parse().expect("a header's name");
        let value: HeaderValue = value.parse().expect("a header's value");
        request.headers_mut().append(key, value);
    }
    let handshake = tokio_tungstenite::client_async(request, dial.io().await);
    let (socket, response) = deadline("a WebSocket handshake", handshake).await?;
    Ok(Ws { socket, response })
}

/// Connects and upgrades; panics on an error.
pub async fn connect(dial: &Dial, path: &str, headers: &[(&str, &str)]) -> Ws {
    let connected = try_connect(dial, path, headers).await;
    connected.unwrap_or_else(|e| panic!("WebSocket {path}: {e}"))
}

impl Ws {
    /// Name of the node that answered.
    pub fn node(&self) -> String {
        let name = self.response.headers().get("x-node");
        name.and_then(|v| v.to_str().ok())
            .unwrap_or("(no node)")
            .to_owned()
    }

    /// Sends a text message.
    pub async fn say(&mut self, text: &str) {
        let sent = self.socket.send(Message::text(text)).await;
        sent.unwrap_or_else(|e| panic!("send {text:?}: {e}"));
    }

    /// Returns the next text message; panics if the socket ends before.
    pub async fn hear(&mut self) -> String {
        loop {
            match deadline("a message", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Close(frame))) => panic!("closed instead of a message: {frame:?}"),
                Some(Ok(_)) => {}
                Some(Err(e)) => panic!("failed instead of a message: {e}"),
                None => panic!("ended instead of a message"),
            }
        }
    }

    /// Waits until the socket ends; returns the close code, if any.
    pub async fn ended(&mut self) -> Option<u16> {
        let end = async {
            let mut code = None;
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Close(frame) = message {
                    code = frame.map(|f| f.code.into());
                }
            }
            code
        };
        deadline("the end of a WebSocket", end).await
    }
}
