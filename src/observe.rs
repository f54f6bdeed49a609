//! What operators see: metrics, the access log and the words for the end of a flow.

pub mod access_log;
pub mod end_reason;
pub mod metrics;
