//! Serves HTTP/2: one client connection, with each of its streams as the client's side of an exchange.
//!
//! The `h2` crate parses the small frames (SETTINGS, PING, WINDOW_UPDATE and the like). The loop, the
//! streams, their windows, the order of writes, the limits and the heads are our own code. They decide how
//! many bytes are hidden, and what one client may cost the others.
//! Source: RFC 9113; RFC 7541 (heads); RFC 8441 (WebSocket).

mod connection;
#[cfg(fuzzing)]
pub mod fuzz;
mod head;
mod hpack;
mod input;
mod limits;
mod mux;
mod request;
mod stream;
mod websocket;

pub use self::connection::serve;
