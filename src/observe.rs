//! What operators see: metrics, the access log, the service log and the words for the end of a flow.

mod access_form;
pub mod access_log;
mod datagrams;
pub mod end_reason;
mod journald;
pub mod line_queue;
pub mod metrics;
pub mod pace;
pub mod process;
pub mod seldom;
pub mod service_log;
pub mod systemd;
pub mod silence;
pub mod syslog;
pub mod termination;
