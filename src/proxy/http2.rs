//! HTTP/2: one client connection, and each of its streams as a client's side of an exchange.
//!
//! The `h2` crate has the grammar of the frames and the compression of the heads. The loop, the streams, their
//! windows, who writes next, and the limits are ours, because they decide how many bytes are hidden and what
//! one client may cost the others.
//! Source: RFC 9113; RFC 8441 (WebSocket).

mod connection;
mod heads;
mod input;
mod limits;
mod mux;
mod request;
mod stream;
mod websocket;

pub use self::connection::serve;
