//! Provides Pingora's session to the hooks: the request's head, and a place for an answer of our own.
//!
//! In: a head. Out: a [`HookSession`] to call a hook with, and the answer the hook wrote. A header map is
//! made only if a hook asks for one. Each thread keeps spare sessions: making one costs 1 µs, taking one some
//! 50 ns.
//! Source: pingora-core 0.9.1 `protocols/http/custom/server.rs`.

use std::cell::RefCell;
use std::io::Cursor;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use pushgate_plugins::head::Head;

/// Most spare sessions that a thread keeps.
const MAX_SPARE: usize = 32;

thread_local! {
    #[allow(clippy::vec_box, reason = "a session is handed out by its pointer, not copied")]
    static SPARE: RefCell<Vec<Box<HookSession>>> = const { RefCell::new(Vec::new()) };
}

/// A session for the hooks of one request.
pub struct HookSession {
    /// The session a hook is called with.
    pub session: Session,
    /// Placeholder argument of `upstream_request_filter`: the edits are in the context.
    pub request: RequestHeader,
    /// Placeholder argument of `response_filter`: the edits are in the context.
    pub response: ResponseHeader,
    written: Arc<Mutex<Written>>,
}

/// The answer a hook wrote.
#[derive(Default)]
struct Written {
    head: Option<ResponseHeader>,
    body: Vec<u8>,
}

impl HookSession {
    /// Takes a spare session, or makes one, for the request with this head.
    ///
    /// Errors: never in practice. Pingora's constructors return a `Result`.
    pub fn take(head: &Arc<Head>) -> Result<Box<Self>> {
        let mut this = match SPARE.with_borrow_mut(Vec::pop) {
            Some(spare) => spare,
            None => Box::new(HookSession {
                session: Session::new_h1(Box::new(Cursor::new(Vec::<u8>::new()))),
                request: RequestHeader::build("GET", b"/", None)?,
                response: ResponseHeader::build(200, None)?,
                written: Arc::default(),
            }),
        };
        let downstream = Downstream {
            head: head.clone(),
            made: OnceLock::new(),
            written: this.written.clone(),
        };
        *this.session.downstream_session = ServerSession::new_custom(Box::new(downstream));
        Ok(this)
    }

    /// Takes the answer that a hook wrote; `None`: no hook wrote one.
    pub fn written(&mut self) -> Option<(ResponseHeader, Vec<u8>)> {
        let written = std::mem::take(&mut *self.written.lock());
        written.head.map(|head| (head, written.body))
    }

    /// Keeps the session for the thread's next request. Until then it holds the current head.
    pub fn give_back(self: Box<Self>) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(self);
            }
        });
    }
}

/// The client's side as Pingora's session sees it.
struct Downstream {
    head: Arc<Head>,
    made: OnceLock<Box<RequestHeader>>,
    written: Arc<Mutex<Written>>,
}

impl Downstream {
    /// Makes a header map of the head. It omits fields that the map does not accept; a target that it does
    /// not accept becomes `/`.
    fn make(&self) -> Box<RequestHeader> {
        let path = self.head.origin_form().unwrap_or("/").as_bytes();
        let made = RequestHeader::build(self.head.method(), path, Some(self.head.len()))
            .or_else(|_| RequestHeader::build("GET", b"/", None));
        let mut made = made.unwrap_or_else(|_| unreachable!("GET / is a legal request line"));
        if self.head.is_http_10() {
            made.set_version(http::Version::HTTP_10);
        }
        for (name, value) in self.head.fields() {
            let _ = made.append_header(name.to_owned(), value);
        }
        Box::new(made)
    }
}

#[async_trait]
impl CustomSession for Downstream {
    fn req_header(&self) -> &RequestHeader {
        self.made.get_or_init(|| self.make())
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        let made = self.made.take().unwrap_or_else(|| self.make());
        self.made = OnceLock::from(made);
        self.made.get_mut().expect("it was set in the line above")
    }

    /// Always fails, because no hook may read the body.
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Err(Error::explain(
            ErrorType::InternalError,
            "a hook must not read the body",
        ))
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, _: bool) -> Result<()> {
        self.written.lock().head = Some(*head);
        Ok(())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, _: bool) -> Result<()> {
        self.written.lock().head = Some(head.clone());
        Ok(())
    }

    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        self.written.lock().body.extend_from_slice(&data);
        Ok(())
    }

    async fn write_trailers(&mut self, _: HeaderMap) -> Result<()> {
        Ok(())
    }

    async fn response_duplex_vec(&mut self, _: Vec<HttpTask>) -> Result<bool> {
        Ok(true)
    }

    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, _: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, _: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    /// Omits the query, in which push clients send passwords.
    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method(), self.head.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        None
    }

    async fn shutdown(&mut self, _: u32, _: &str) {}

    fn is_body_done(&mut self) -> bool {
        true
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        true
    }

    async fn read_body_or_idle(&mut self, _: bool) -> Result<Option<Bytes>> {
        std::future::pending().await
    }

    fn body_bytes_sent(&self) -> usize {
        0
    }

    fn body_bytes_read(&self) -> usize {
        0
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::copy_from_slice(self.head.raw())
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
