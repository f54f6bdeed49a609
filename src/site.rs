//! What the edges of a site share: through a store that operators already run, Redis or Valkey.
//!
//! In: the block `state`. Out: a [`Store`] that answers within a deadline or not at all, and tells of what other
//! edges did. No flow depends on it: while the store is away, each edge goes on alone.
//! Source: docs/scale.md, "A store for the site".

mod claims;
mod connection;
mod error;
mod other_edges;
mod renewal;
mod seal;
mod secrets;
mod status;
mod store;
mod value;

use std::sync::Arc;

use crate::config::Config;
pub use claims::{Claims, claims};
pub use connection::probe;
pub use error::StoreError;
pub use other_edges::OtherEdges;
pub use renewal::renew;
pub use secrets::Secrets;
pub use status::{State, Status};
pub use store::{Store, Topic};

/// Makes the store of `config`; `None`: its edge is alone. Nothing is connected yet.
///
/// Errors: a file that the block `state` names cannot be read or used.
pub fn store(config: &Config) -> Result<Option<Arc<Store>>, String> {
    let Some(state) = &config.state else {
        return Ok(None);
    };
    let secrets = Secrets::read(&state.redis, &config.dir)?;
    Ok(Some(Store::new(state.redis.clone(), secrets)))
}
