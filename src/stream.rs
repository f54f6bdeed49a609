//! Moves bytes between two sockets and knows what the sockets hold.
//!
//! Nothing here knows of routes, nodes or HTTP semantics beyond message framing.
//! Source: Lightstreamer clustering §1 ("forwarded to the clients immediately, without any buffering").

pub mod answer;
mod bulk;
pub mod descriptors;
pub mod direction;
pub mod frames;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod framing;
pub mod handoff;
pub mod joined;
pub mod last_bytes;
pub mod parting;
pub mod relay;
pub mod side;
pub mod socket;
pub mod vigil;
mod waiting;
