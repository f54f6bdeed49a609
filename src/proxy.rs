//! Serves client connections: chooses the protocol, and carries each flow to its node.
//!
//! In: an admitted client connection. Out: its bytes at a node, the node's bytes at the client, one access
//! line for each flow. Order: `serve` → `http1`, `http2` or `tcp`. `hooks` decide.
//! Source: Lightstreamer clustering §1 (layers 7 and 4), §2, §3; Diffusion load balancers, all points.

mod access_line;
pub mod assign;
mod claim;
pub mod clients;
pub mod conn;
pub mod flow;
pub mod hooks;
pub mod http1;
pub mod http2;
pub mod idle_clients;
pub mod listener;
pub mod open;
pub mod place;
pub mod request_line;
pub mod response_tap;
pub mod serve;
pub mod service;
pub mod tcp;
pub mod threads;
pub mod tunnel;
pub mod turn;
