//! Looks the host names of a configuration up, for `check --online`.
//!
//! In: a checked configuration. Out: a warning for each name without an address. The lookups run side by side,
//! and each ends after the time that `resolvers.timeout` gives it.

use tokio::task::JoinSet;

use crate::config::{Address, Config, ConfigError, Family, Places};
use crate::upstream::discover::{Resolver, Source};

/// A name of the file, and the path of its key.
struct Asked {
    source: Source,
    path: Vec<String>,
}

/// Returns a warning for each name that has no address now. Names of this machine (`localhost`) are not asked.
pub fn unresolved(config: &Config, places: &Places) -> Vec<ConfigError> {
    let asked = asked(config);
    if asked.is_empty() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let sources = asked.iter().map(|one| one.source.clone()).collect();
    let answered = runtime
        .map_err(|e| e.to_string())
        .and_then(|runtime| runtime.block_on(faults(config, sources)));
    let faults = answered.unwrap_or_else(|e| vec![Some(e); asked.len()]);
    let pairs = asked.into_iter().zip(faults);
    let warnings = pairs.filter_map(|(one, fault)| {
        let message = format!("`{}` has no address now: {}", one.source, fault?);
        let expected = "a name that DNS knows; see `resolvers`".to_owned();
        Some(places.warning(one.path, message, Some(expected)))
    });
    warnings.collect()
}

/// Asks for all sources at once. Returns why each has no address, in their order.
///
/// Errors: no lookup can be made.
async fn faults(config: &Config, sources: Vec<Source>) -> Result<Vec<Option<String>>, String> {
    let resolver = Resolver::new(&config.resolvers)?;
    let mut asking = JoinSet::new();
    for (i, source) in sources.iter().cloned().enumerate() {
        let resolver = resolver.clone();
        asking.spawn(async move { (i, resolver.ask(&source).await) });
    }
    let mut faults = vec![None; sources.len()];
    while let Some(answered) = asking.join_next().await {
        let (i, answer) = answered.map_err(|e| e.to_string())?;
        faults[i] = answer.err().map(|e| e.to_string());
    }
    Ok(faults)
}

fn asked(config: &Config) -> Vec<Asked> {
    let steps = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
    let mut asked = Vec::new();
    for (name, node) in &config.nodes {
        if let Address::Host(host) = &node.address
            && !host.host.is_localhost()
        {
            asked.push(Asked {
                source: Source {
                    name: host.host.clone(),
                    port: Some(host.port),
                    family: Family::Auto,
                },
                path: steps(&["nodes", name, "address"]),
            });
        }
    }
    for (name, pool) in &config.pools {
        let Some(found) = &pool.discover else {
            continue;
        };
        let host = found
            .host
            .as_ref()
            .map(|h| (h.host.clone(), Some(h.port), "host"));
        let srv = found.srv.as_ref().map(|name| (name.clone(), None, "srv"));
        for (host, port, key) in host.into_iter().chain(srv) {
            asked.push(Asked {
                source: Source {
                    name: host,
                    port,
                    family: found.family,
                },
                path: steps(&["pools", name, "discover", key]),
            });
        }
    }
    asked
}
