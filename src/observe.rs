//! What can be seen from outside: metrics and the access log.

pub mod access_log;
pub mod end_reason;
pub mod metrics;
