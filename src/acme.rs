//! Certificates that the edge gets itself: proofs that names lead here, the state folder, requests to an authority,
//! and when the next order is due.
//!
//! In: names and an authority. Out: the parts of an order, which `control::acme` puts together; the answers to
//! challenges, which listeners ask for. Source: RFC 8555; RFC 8737.

mod answers;
mod client;
mod due;
mod folder;
mod lock;
mod proof;
mod request;
mod series;

pub use answers::{answer_all, http_answer, tls_answer};
pub use client::Client;
pub use due::{fits, pause, renewal};
pub use folder::Folder;
pub use lock::Lock;
pub use proof::{PROTOCOL, Proof};
pub use request::{judge, request};
pub use series::Series;

/// Path of requests by which an authority asks for a proof (RFC 8555 §8.3).
pub const WELL_KNOWN: &str = "/.well-known/acme-challenge/";
