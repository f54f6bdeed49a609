//! Agrees with the other edges on the node of a client, through the store.
//!
//! In: claims of flows whose client this edge does not know, and what its tables change by themselves. Out: entries
//! of the tables that agree with the other edges. The first edge that writes wins. A question runs in a task of its
//! own: the flow waits for it for a bounded time, and an answer that comes later is still learned.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use parking_lot::Mutex;
use pushgate_plugins::api::{Adopted, Claim, NodeId, PoolId, SharedTable};
use redis::{Cmd, cmd};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::seal::SiteKey;
use super::value::Value;
use super::{Store, StoreError, Topic};
use crate::balance::Pool;
use crate::observe::metrics;
use crate::upstream::State;

/// After this time an answer is of no use, even to later flows.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// Most questions under way: what comes beyond it is not told, and this edge goes on by itself.
const MOST: usize = 10_000;
/// Most nodes of other edges of which the log is told.
const STRANGERS: usize = 100;
/// How long the store remembers an assignment that has no expiry.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often an id that no edge knows is looked up again within [`Claims::wait`], if the time suffices.
const LOOKS: u32 = 2;
/// By so much a pause may be longer than asked for.
const TICK: Duration = Duration::from_millis(1);
/// Clients whose assignment an edge has forgotten.
pub(super) const FORGOTTEN: Topic = Topic("forgotten");
/// Sets a key if it still has the value that was found, and returns what it has then.
const REPLACE: &str = "local v = redis.call('GET', KEYS[1]) \
                       if v and v ~= ARGV[1] then return v end \
                       redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return ARGV[2]";
static CLAIMS: OnceLock<Arc<Claims>> = OnceLock::new();

/// Returns the claims of this process; `None`: this edge is alone.
pub fn claims() -> Option<&'static Arc<Claims>> {
    CLAIMS.get()
}

type Pools = HashMap<PoolId, Arc<Pool>>;

/// The assignments that this edge shares with others.
pub struct Claims {
    pub(super) store: Arc<Store>,
    pub(super) runtime: Handle,
    pub(super) key: SiteKey,
    /// Tells this process from other edges.
    pub(super) own: u64,
    pub(super) pools: ArcSwap<Pools>,
    pub(super) tables: Mutex<HashMap<String, Joined>>,
    /// Counts the configurations that were put in force.
    pub(super) configuration: AtomicU64,
    under_way: AtomicUsize,
    /// Nodes of other edges of which the log has been told.
    strangers: Mutex<HashSet<String>>,
}

/// A table, and when its assignments were told last; `None`: all of them must be told.
pub(super) struct Joined {
    pub table: Arc<dyn SharedTable>,
    pub told: Option<Instant>,
    /// The last configuration that had it.
    pub configuration: u64,
}

impl Claims {
    /// Makes the claims of this process, over `store`; called once, on the runtime that carries the questions.
    ///
    /// Errors: OpenSSL.
    pub fn start(store: &Arc<Store>) -> Result<Arc<Claims>, ErrorStack> {
        let claims = Arc::new(Claims {
            store: store.clone(),
            runtime: Handle::current(),
            key: SiteKey::new(&store.secret())?,
            own: fastrand::u64(..),
            pools: ArcSwap::default(),
            tables: Mutex::default(),
            configuration: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            strangers: Mutex::default(),
        });
        let weak = Arc::downgrade(&claims);
        store.follow(FORGOTTEN, move |sealed| {
            if let Some(claims) = weak.upgrade() {
                claims.hear(sealed);
            }
        });
        Ok(CLAIMS.get_or_init(|| claims).clone())
    }

    /// Uses these pools from now on. The tables that the new configuration still has join again.
    pub fn use_pools(&self, pools: Arc<Pools>) {
        self.pools.store(pools);
        self.configuration.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets go of the tables that have not joined again.
    pub fn sweep(&self) {
        let now = self.configuration.load(Ordering::Relaxed);
        self.tables.lock().retain(|_, t| t.configuration == now);
    }

    /// Whether flows may ask.
    pub fn serves(&self) -> bool {
        self.store.serves()
    }

    /// Longest time that a flow waits.
    pub fn wait(&self) -> Duration {
        self.store.wait()
    }

    /// Notes whether a flow was told in time.
    pub fn waited(&self, in_time: bool) {
        if !in_time {
            count("late");
        }
        self.store.waited(in_time);
    }

    /// Agrees on a node: that of the first of `asked` that another edge has assigned, to a node that is not in `tried`;
    /// else `choice`. Without a choice it only looks. Resolves when the plugins' tables know what can be known. The flow
    /// waits until `until`.
    pub fn ask(
        self: &Arc<Self>,
        (asked, choice, tried): (Vec<Arc<dyn Claim>>, Option<NodeId>, Vec<NodeId>),
        until: Instant,
    ) -> oneshot::Receiver<()> {
        let (told, answer) = oneshot::channel();
        if let Some(way) = self.way() {
            self.runtime.spawn(async move {
                way.0.settle_all(&asked, choice, &tried, until).await;
                // The flow may have gone on without.
                let _ = told.send(());
            });
        }
        answer
    }

    /// Lets a question begin, unless too many are under way.
    pub(super) fn way(self: &Arc<Self>) -> Option<UnderWay> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let way = UnderWay(self.clone());
        (before < MOST).then_some(way)
    }

    /// Settles the first of `asked` that can be.
    async fn settle_all(
        &self,
        asked: &[Arc<dyn Claim>],
        choice: Option<NodeId>,
        tried: &[NodeId],
        until: Instant,
    ) {
        let pause = self.wait() / (LOOKS + 1);
        // The rest of `wait` is for what is asked after the last look.
        let last_look = until.checked_sub(self.wait() / 4).unwrap_or(until);
        for claim in asked {
            let choice = choice.filter(|_| !claim.is_proved());
            let mut result = self.settle(&**claim, choice, tried).await;
            for _ in 0..LOOKS {
                // The edge that saw the answer may be writing the id while its client already uses it here.
                let may_wait = Instant::now() + pause + TICK < last_look;
                if !claim.is_proved() || result != "unknown" || !may_wait {
                    break;
                }
                sleep(pause).await;
                result = self.settle(&**claim, choice, tried).await;
            }
            count(result);
            if matches!(result, "won" | "told" | "replaced") {
                return;
            }
        }
    }

    /// Writes `choice` if the store has nothing, or takes over what it has. Returns the word for the metric.
    pub(super) async fn settle(
        &self,
        claim: &dyn Claim,
        choice: Option<NodeId>,
        tried: &[NodeId],
    ) -> &'static str {
        let (Some(pool), Ok(key)) = (self.pool(claim.pool()), self.key_of(claim)) else {
            return "failed";
        };
        let mine =
            choice.and_then(|id| Some((id, Value::new(&pool.node(id)?.name, Duration::ZERO))));
        let question = match &mine {
            Some((_, value)) => set(&key, &value.text(), claim, Duration::ZERO, &["NX", "GET"]),
            None => get(&key),
        };
        let found: Option<String> = match self.store.call(&question, DEADLINE).await {
            Ok(found) => found,
            // It still answers what it holds.
            Err(e @ StoreError::Full(_)) => {
                let held: Result<Option<String>, _> = self.store.call(&get(&key), DEADLINE).await;
                let held = held.unwrap_or_default();
                let told = held.and_then(|held| self.follow(claim, &pool, &held, tried));
                return told.unwrap_or_else(|| word(&e));
            }
            Err(e) => return word(&e),
        };
        match (found, mine) {
            // Of the age that the store knows: a rule that forgets may have come since the question.
            (None, Some((node, value))) => {
                claim.adopt(node, value.age(), value.second());
                "won"
            }
            (None, None) => "unknown",
            (Some(found), mine) => match (self.follow(claim, &pool, &found, tried), mine) {
                (Some(word), _) => word,
                (None, Some(mine)) => self.replace(claim, &pool, &found, mine, tried).await,
                (None, None) => "unusable",
            },
        }
    }

    /// Puts `mine` in the place of `found`, which nobody here can use, unless another edge was quicker.
    pub(super) async fn replace(
        &self,
        claim: &dyn Claim,
        pool: &Pool,
        found: &str,
        (node, value): (NodeId, Value),
        tried: &[NodeId],
    ) -> &'static str {
        let Ok(key) = self.key_of(claim) else {
            return "failed";
        };
        let (text, left) = (value.text(), ttl(claim, value.age()).as_millis() as u64);
        let mut replace = cmd("EVAL");
        replace
            .arg(REPLACE)
            .arg(1)
            .arg(&key)
            .arg(found)
            .arg(&text)
            .arg(left);
        match self.store.call::<String>(&replace, DEADLINE).await {
            Ok(has) if has == text => {
                claim.adopt(node, value.age(), value.second());
                // Another edge may know the client at the node that was there.
                if let Some(old) = Value::parse(found) {
                    self.tell_forgotten(claim, NodeId::of(&old.node)).await;
                }
                "replaced"
            }
            Ok(has) => self.follow(claim, pool, &has, tried).unwrap_or("unusable"),
            Err(e) => word(&e),
        }
    }

    /// Takes over the value `found`. `None`: its node is unknown here, Down or tried, or it is too old or forgotten.
    pub(super) fn follow(
        &self,
        claim: &dyn Claim,
        pool: &Pool,
        found: &str,
        tried: &[NodeId],
    ) -> Option<&'static str> {
        let value = Value::parse(found)?;
        let Some(node) = pool.node(NodeId::of(&value.node)) else {
            self.warn_of(&value.node, &pool.name);
            return None;
        };
        if node.state() == State::Down || tried.contains(&node.id) {
            return None;
        }
        match claim.adopt(node.id, value.age(), value.second()) {
            Adopted::Taken => Some("told"),
            Adopted::Contradicted => Some("contradicted"),
            Adopted::Over => None,
        }
    }

    /// Warns once of a node that other edges have and this one does not.
    fn warn_of(&self, node: &str, pool: &str) {
        let mut strangers = self.strangers.lock();
        if strangers.len() < STRANGERS && strangers.insert(node.to_owned()) {
            log::warn!(
                "store: another edge has sent clients to node {node}, which pool {pool} of this edge does not have"
            );
        }
    }

    pub(super) fn pool(&self, id: PoolId) -> Option<Arc<Pool>> {
        self.pools.load().get(&id).map(|pool| pool.current())
    }

    pub(super) fn key_of(&self, claim: &dyn Claim) -> Result<String, ErrorStack> {
        let hash = self.key.hash(&claim.name())?;
        Ok(self.store.key("a", &hash))
    }

    /// Hears that another edge has forgotten a client.
    fn hear(&self, sealed: &[u8]) {
        let Some(message) = self.key.open(sealed) else {
            return;
        };
        let parts = message.split_first_chunk::<8>();
        let parts = parts.and_then(|(from, rest)| Some((from, rest.split_first_chunk::<8>()?)));
        let Some((from, (node, name))) = parts else {
            return;
        };
        // What this edge has told it has also done.
        if u64::from_be_bytes(*from) == self.own {
            return;
        }
        let tables: Vec<_> = self
            .tables
            .lock()
            .values()
            .map(|t| t.table.clone())
            .collect();
        let claim = tables.iter().find_map(|t| t.named(name));
        if let Some(claim) = claim {
            claim.forget(NodeId(u64::from_be_bytes(*node)));
        }
    }
}

/// Counts a question as under way.
pub(super) struct UnderWay(pub Arc<Claims>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn count(result: &str) {
    metrics::get()
        .store_claims
        .with_label_values(&[result])
        .inc();
}

pub(super) fn word(e: &StoreError) -> &'static str {
    match e {
        StoreError::Away => "away",
        StoreError::Late => "late",
        StoreError::Full(_) => "full",
        StoreError::NoMaster(_) | StoreError::Failed(_) => "failed",
    }
}

fn get(key: &str) -> Cmd {
    let mut get = cmd("GET");
    get.arg(key);
    get
}

/// Returns for how long the store remembers an assignment of this age that nobody uses.
pub(super) fn ttl(claim: &dyn Claim, age: Duration) -> Duration {
    let expiry = claim.expiry().unwrap_or(LONGEST);
    let left = claim.left(age).unwrap_or(LONGEST);
    expiry.min(left).clamp(Duration::from_millis(1), LONGEST)
}

/// Returns the command that writes an assignment of this age.
pub(super) fn set(key: &str, value: &str, claim: &dyn Claim, age: Duration, how: &[&str]) -> Cmd {
    let mut set = cmd("SET");
    set.arg(key).arg(value).arg(how);
    set.arg("PX").arg(ttl(claim, age).as_millis() as u64);
    set
}
