//! Follows the DNS names by which nodes are found. A name is looked up again when the TTL of its answer ends,
//! and a changed answer is put in force as a small reload.
//!
//! In: a configuration, answers. Out: the configuration with the nodes found now. If a lookup fails, the last
//! good answer stays. Source: FAULTS D66.

mod expand;
mod follow;
mod following;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pushgate_plugins::api::unix_seconds;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub use self::expand::Expanded;
use self::expand::{expand, node_name, source_of, source_of_host};
use self::follow::Follow;
use self::following::{Followed, Following, FoundNodes, Seen};
use super::file_thread::on_file_thread;
use crate::config::{Address, Config};
use crate::observe::metrics;
use crate::upstream::discover::{Answer, Resolver, Source};
use crate::upstream::drain::Ending;

/// How many `timeout`s a start or a reload waits for the first answers.
const FIRST_TIMEOUTS: u32 = 2;

/// The names that are followed, and the nodes they found.
pub struct Discovery {
    following: Mutex<Following>,
    /// Notified when an answer differs from the one before.
    pub(super) changed: Arc<Notify>,
}

impl Discovery {
    /// Follows nothing yet. `answers` come from the predecessor.
    pub fn new(answers: Vec<(Source, Answer)>) -> Self {
        let following = Following {
            inherited: answers.into_iter().collect(),
            ..Following::default()
        };
        Discovery {
            following: Mutex::new(following),
            changed: Arc::default(),
        }
    }

    /// Starts to follow the new names of `config`, and waits for their first answers for a limited time.
    /// Returns the resolver to ask from now on; `None`: the configuration has no names.
    ///
    /// Errors: the resolver cannot be set up.
    pub async fn begin(&self, config: &Config) -> Result<Option<Arc<Resolver>>, String> {
        let wanted = sources(config);
        if wanted.is_empty() {
            return Ok(None);
        }
        let conf = config.resolvers.clone();
        // It reads a file.
        let resolver = on_file_thread(move || Resolver::new(&conf)).await;
        let resolver = resolver.and_then(|made| made);
        let resolver = resolver.map_err(|e| format!("resolvers: {e}"))?;
        let mut first = Vec::new();
        {
            let mut following = self.following.lock();
            for source in wanted {
                if following.sources.contains_key(&source) {
                    continue;
                }
                let answer = following.inherited.remove(&source);
                let is_known = answer.is_some();
                let seen = Arc::new(tokio::sync::watch::Sender::new(Seen {
                    answer,
                    ..Seen::default()
                }));
                if !is_known {
                    first.push(seen.subscribe());
                }
                let followed = self.start(&source, seen, &resolver, &config.resolvers);
                following.sources.insert(source, followed);
            }
        }
        let all = async {
            for mut seen in first {
                // On an error the name's task has ended, so there is nothing to wait for.
                let _ = seen.wait_for(|s| s.asked > 0).await;
            }
        };
        let patience = config.resolvers.timeout.0 * FIRST_TIMEOUTS;
        if tokio::time::timeout(patience, all).await.is_err() {
            log::warn!(
                "resolvers: some names have no answer after {patience:?}; their nodes are missing"
            );
        }
        Ok(Some(resolver))
    }

    /// Called when `config` is in force: asks `resolver` from now on, and stops following other names. A name
    /// whose resolver changed is asked at once.
    pub fn settle(&self, config: &Config, resolver: Option<Arc<Resolver>>) {
        self.keep_only(Some(config));
        let Some(resolver) = resolver else { return };
        for (source, followed) in &mut self.following.lock().sources {
            if !Arc::ptr_eq(&followed.resolver, &resolver) {
                let seen = followed.seen.clone();
                *followed = self.start(source, seen, &resolver, &config.resolvers);
            }
        }
    }

    /// Stops following names that are not in `config`.
    pub fn keep_only(&self, config: Option<&Config>) {
        let wanted = config.map(sources).unwrap_or_default();
        let mut following = self.following.lock();
        following.sources.retain(|source, _| {
            let stays = wanted.contains(source);
            if !stays {
                metrics::get().forget_source(&source.to_string());
            }
            stays
        });
        let pools = |name: &String| config.is_some_and(|c| c.pools.contains_key(name));
        following.found.pools.retain(|name, _| pools(name));
        let nodes = |name: &String| config.is_some_and(|c| c.nodes.contains_key(name));
        following.found.nodes.retain(|name, _| nodes(name));
        following.inherited.clear();
    }

    /// Returns `config` with the nodes that are found now. The caller passes them to [`Discovery::found`] once they
    /// are in force.
    pub fn expand(&self, config: &Config) -> Expanded {
        expand(config, &self.following.lock(), Instant::now())
    }

    /// Keeps the found nodes of an expanded configuration that is in force now.
    pub fn found(&self, nodes: FoundNodes) {
        self.following.lock().found = nodes;
    }

    /// Returns the last good answers, for a successor.
    pub fn answers(&self) -> Vec<(Source, Answer)> {
        let following = self.following.lock();
        let all = following.sources.iter();
        all.filter_map(|(source, f)| Some((source.clone(), f.seen.borrow().answer.clone()?)))
            .collect()
    }

    /// Returns what is known of each name, for the admin endpoint.
    pub fn shown(&self) -> Value {
        let following = self.following.lock();
        let one = |(source, followed): (&Source, &Followed)| {
            let seen = followed.seen.borrow();
            let targets = seen.answer.iter().flat_map(|a| &a.targets);
            let targets = targets.map(|t| json!({ "address": t.address, "weight": t.weight }));
            json!({
                "source": source.to_string(), "answer": targets.collect::<Value>(),
                "answered": seen.answered.map(unix_seconds),
                "ttl_seconds": seen.answer.as_ref().map(|a| a.ttl.as_secs_f64()),
                "left_out": seen.answer.as_ref().map(|a| a.left_out),
                "failure": seen.failure.as_ref().map(ToString::to_string),
            })
        };
        following.sources.iter().map(one).collect()
    }

    fn start(
        &self,
        source: &Source,
        seen: Arc<tokio::sync::watch::Sender<Seen>>,
        resolver: &Arc<Resolver>,
        conf: &crate::config::Resolvers,
    ) -> Followed {
        let follow = Follow {
            source: source.clone(),
            resolver: resolver.clone(),
            seen: seen.clone(),
            changed: self.changed.clone(),
            min_ttl: conf.min_ttl.0,
        };
        Followed {
            seen,
            resolver: resolver.clone(),
            _task: Ending(tokio::spawn(follow.run())),
        }
    }

    /// Removes nodes that left their answer and have no flows; true if it removed any.
    pub(super) fn sweep(&self, config: &Config, live: impl Fn(&str) -> usize) -> bool {
        let now = Instant::now();
        let mut swept = false;
        for (pool, members) in &mut self.following.lock().found.pools {
            let conf = config.pools.get(pool).and_then(|p| p.discover.as_ref());
            let linger = conf.map_or(Duration::ZERO, |d| d.linger.0);
            swept |= members.sweep(now, linger, |a| live(&node_name(pool, a)));
        }
        swept
    }
}

/// Returns the names that a configuration asks for.
fn sources(config: &Config) -> BTreeSet<Source> {
    let nodes = config.nodes.values().filter_map(|n| match &n.address {
        Address::Host(host) => Some(source_of_host(host)),
        Address::Socket(_) | Address::Unix(_) => None,
    });
    let pools = config.pools.values().filter_map(|p| p.discover.as_ref());
    nodes.chain(pools.filter_map(source_of)).collect()
}
