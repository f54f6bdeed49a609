//! What runs, how it changes while it runs, and the API that operators use. It stands above the flows.

pub mod acme;
pub mod admin;
pub mod certificates;
pub mod discovery;
pub mod discovery_watch;
pub mod endpoint;
pub mod expiry;
pub mod file_thread;
pub mod handover;
pub mod node_tls;
pub mod parts;
pub mod plan;
pub mod planned;
pub mod ready;
pub mod rebalance;
pub mod refused;
pub mod running;
pub mod site;
pub mod sockets;
pub mod started;
pub mod stop;

pub use running::Running;
