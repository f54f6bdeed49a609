//! `pushgate simulate`: shows what a script of failures does to many clients under a configuration.
//!
//! In: a configuration and [`Settings`]. Out: the distribution of flows over time, peaks, how soon cut
//! clients have a flow again, and which sessions moved. Routes, plugins, balancer and flow limits are the
//! code of the running edge ([`crate::route::Table`]); clients and nodes are made up. The clock jumps
//! from event to event, and the same seed gives the same run. Nothing is bound.
//! Source: Lightstreamer clustering §5; FAULTS D47, D65.

mod client;
mod queue;
mod report;
mod script;
mod world;

pub use self::report::Report;
pub use self::script::{Settings, Times};
use self::world::World;
use crate::config::Config;

/// Runs the script of `settings` against `config`.
///
/// Errors: the clients reach no listener or no pool; an event names an unknown node; a pool finds its
/// nodes by DNS, which is not asked here; a file was removed since the configuration was checked.
pub fn simulate(config: &Config, settings: &Settings) -> Result<Report, String> {
    let found = |pool: &&String| config.pools[*pool].discover.is_some();
    if let Some(pool) = config.pools.keys().find(found) {
        let instead = "name them in `nodes` of a copy of the file";
        return Err(format!(
            "the nodes of pool `{pool}` are found by DNS, which `simulate` does not ask: {instead}"
        ));
    }
    World::new(config, settings)?.run()
}

#[cfg(test)]
mod tests;
