//! Why the store did not answer.

use redis::RedisError;

/// Why the store did not answer a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection to it.
    #[error("no connection to the store")]
    Away,
    /// No answer within the deadline. What was asked may still happen.
    #[error("no answer from the store in time")]
    Late,
    /// It has no memory for more.
    #[error("the store is full: {0}")]
    Full(String),
    /// It is no master now.
    #[error("the server is no master: {0}")]
    NoMaster(String),
    /// It refused, or the connection broke.
    #[error("{0}")]
    Failed(String),
}

impl From<RedisError> for StoreError {
    fn from(e: RedisError) -> Self {
        let text = e.to_string();
        match e.code() {
            Some("OOM") => StoreError::Full(text),
            Some("READONLY" | "MASTERDOWN" | "LOADING") => StoreError::NoMaster(text),
            _ if e.is_timeout() => StoreError::Late,
            _ => StoreError::Failed(text),
        }
    }
}
