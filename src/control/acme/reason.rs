//! Puts into words why an order failed.
//!
//! In: errors of the ACME client, an authority's problem documents. Out: one line of the log, of bounded length.
//! Source: RFC 8555 §6.7.

use instant_acme::{Error, Problem};

use crate::acme::Proof;

/// Why an order failed.
pub enum Failure {
    /// The authority does not take the account.
    Account(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    /// Returns the reason.
    pub fn why(self) -> String {
        match self {
            Failure::Account(why) | Failure::Other(why) => why,
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Other(why)
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let refuses = |problem: &Problem| {
            let kind = problem.r#type.as_deref().unwrap_or_default();
            let kind = kind.rsplit(':').next().unwrap_or_default();
            matches!(kind, "accountDoesNotExist" | "unauthorized")
        };
        match &e {
            Error::Api(problem) if refuses(problem) => Failure::Account(said(&e)),
            _ => Failure::Other(said(&e)),
        }
    }
}

/// Replaces the random words in a reason, so that a reason that lasts stays the same text, and bounds its length.
pub fn short(mut why: String, opened: &[Proof]) -> String {
    for proof in opened {
        why = why.replace(&proof.token, "TOKEN");
    }
    why.chars().take(MAX_WHY).collect()
}

/// Formats an error with the authority's own words.
pub fn said(e: &Error) -> String {
    match e {
        Error::Api(problem) => told(problem),
        Error::Json(e) => format!("its answer is not what RFC 8555 says: {e}"),
        e => e.to_string(),
    }
}

/// Formats what an authority says in one line.
pub fn told(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.rsplit(':').next().unwrap_or_default();
    let parts = problem.subproblems.iter().map(ToString::to_string);
    let detail = problem.detail.iter().cloned().chain(parts);
    let detail: Vec<_> = detail.collect();
    // One line of the log, whatever the authority sends.
    let text = format!("{} ({kind})", detail.join("; "));
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TOLD)
        .collect()
}

/// Longest text of an authority that is logged, in characters.
const MAX_TOLD: usize = 500;
/// Longest reason of a failure, in characters: there may be a text for each name.
const MAX_WHY: usize = 2000;
