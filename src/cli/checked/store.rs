//! Asks the store of the site, for `check --online`.

use crate::config::{Config, ConfigError, Places};
use crate::site;

/// Returns a warning if the store of `config` cannot be reached, or is no master.
pub fn unreachable(config: &Config, places: &Places) -> Option<ConfigError> {
    let state = config.state.as_ref()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let probed = runtime
        .map_err(|e| e.to_string())
        .and_then(|runtime| runtime.block_on(site::probe(&state.redis, &config.dir)));
    let path = ["state", "redis", "url"].map(str::to_owned).to_vec();
    let expected = "a master of Redis 7 or Valkey; without it each edge goes on alone".to_owned();
    probed
        .err()
        .map(|why| places.warning(path, why, Some(expected)))
}
