//! Flows: which protocol a client connection speaks, one request and its answer, one layer-4 connection.
//!
//! In: a client connection that was let in. Out: its bytes at a node, the node's bytes at the client, one
//! line in the access log for each flow. Order: `serve` → `http1`, `http2` or `tcp`; `hooks` decide.
//! Source: Lightstreamer clustering §1 (layers 7 and 4), §2, §3; Diffusion load balancers, all points.

pub mod assign;
pub mod clients;
pub mod conn;
pub mod flow;
pub mod hooks;
pub mod http1;
pub mod http2;
pub mod listener;
pub mod open;
pub mod request_line;
pub mod response_tap;
pub mod serve;
pub mod tcp;
pub mod threads;
pub mod tunnel;
