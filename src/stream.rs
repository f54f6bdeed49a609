//! Moves bytes between two sockets, and reads what the kernel holds for them.
//!
//! Its modules know message framing, but no routes, no pools and no other HTTP semantics.
//! Source: Lightstreamer clustering §1 ("forwarded to the clients immediately, without any buffering").

mod bulk;
pub mod by_client;
pub mod client_pace;
pub mod client_share;
pub mod dead_peer;
pub mod descriptors;
pub mod direction;
pub mod frames;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod framing;
pub mod graceful_close;
pub mod kernel;
pub mod last_bytes;
pub mod memory;
pub mod meter;
mod pending_bytes;
pub mod pulse;
pub mod relay;
pub mod side;
pub mod socket;
pub mod source;
pub mod stall;
pub mod substream;
pub mod turns;
pub mod unix;
mod window;
mod window_budget;
