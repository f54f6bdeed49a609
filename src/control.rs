//! Above the flows: what runs, how it is changed while it runs, and how it is asked.

pub mod admin;
pub mod certificates;
pub mod discovery;
pub mod expiry;
pub mod handover;
pub mod parts;
pub mod plan;
pub mod rebalance;
pub mod running;

pub use running::Running;
