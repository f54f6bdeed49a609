//! The last answers for the names that discovery follows.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::upstream::discover::{Answer, DiscoverError, Members, Resolver, Source};
use crate::upstream::drain::Ending;

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The last good answer.
    pub answer: Option<Answer>,
    /// When that answer came; `None`: another process got it.
    pub answered: Option<SystemTime>,
    /// Why the last lookup failed; `None`: it did not.
    pub failure: Option<DiscoverError>,
    /// Lookups that ended.
    pub asked: u64,
}

/// The followed names and the nodes found by them.
#[derive(Default)]
pub(super) struct Following {
    pub sources: BTreeMap<Source, Followed>,
    pub found: FoundNodes,
    /// Answers from the predecessor, until their names are followed.
    pub inherited: HashMap<Source, Answer>,
}

/// One name with the task that follows it.
pub(super) struct Followed {
    pub seen: Arc<watch::Sender<Seen>>,
    pub resolver: Arc<Resolver>,
    pub _task: Ending,
}

/// Nodes that were found by DNS.
#[derive(Clone, Debug, Default)]
pub struct FoundNodes {
    /// Members found for each pool.
    pub pools: HashMap<String, Members>,
    /// The address in use for each node with a host name.
    pub nodes: HashMap<String, SocketAddr>,
}

impl Following {
    /// Returns the last good answer for a name.
    pub fn answer(&self, source: &Source) -> Option<Answer> {
        self.sources.get(source)?.seen.borrow().answer.clone()
    }
}
