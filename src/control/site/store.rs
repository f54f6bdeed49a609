//! What the orders, counts and rebalances of a site ask of the store.
//!
//! In: values. Out: commands of Redis, of which each has a deadline. Keys, all with the prefix: `edges` (hash: name and
//! process of each edge, with the date of its last report), `edge:EDGE` (report, 4 s), `orders` (hash), `lead:POOL` (who
//! leads the rebalance, 5 s), `run:POOL` (its state, 1 h), `part:POOL:EDGE` (3 s). Source: issue 16 §3 to §5.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, cmd};
use tokio::sync::{mpsc, watch};

use super::edge_report::{EdgeReport, LIFETIME};
use super::news::{Message, News};
use super::obey::date;
use super::order::{Order, Subject};
use crate::control::rebalance::site::{Part, SiteRun};
use crate::site::{self, StoreError, Topic};

/// The channel of orders.
const ORDERS: Topic = Topic("orders");
/// Longest wait for one answer.
const WITHIN: Duration = Duration::from_millis(500);
/// Most messages that wait to be obeyed. One that finds no room is dropped: what must hold is read again.
const MOST_WAITING: usize = 1_024;
/// An edge that was not heard for this long is taken out of the list of edges.
const FORGET_EDGE: Duration = Duration::from_secs(3600);
/// How long a leader of a rebalance leads without a word.
const LEAD: Duration = Duration::from_secs(5);
/// How long the state of a rebalance is kept.
const KEEP_RUN: Duration = Duration::from_secs(3600);
/// How long a part counts.
const KEEP_PART: Duration = Duration::from_secs(3);

/// Sets a field of the hash of orders unless it has a later order; returns what it has then.
const PUT_ORDER: &str = "\
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then
  local ok, o = pcall(cjson.decode, old)
  if ok and type(o) == 'table' and type(o.at) == 'number' then
    local at = tonumber(ARGV[3])
    if o.at > at or (o.at == at and tostring(o.by) > ARGV[4]) then return old end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]";

/// Publishes the state of a run if this process leads it, keeps it if it is given, and goes on leading; returns whether
/// it does.
const PUT_RUN: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4]) end
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1";

/// Ends the lead of this process.
const FREE_LEAD: &str = "\
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// The store, as the control of a site uses it.
#[derive(Clone)]
pub struct Store {
    store: Arc<site::Store>,
    /// Name and process of this edge.
    me: String,
    /// Messages of the edges, until somebody listens.
    heard: Arc<Mutex<Option<mpsc::Receiver<Vec<u8>>>>>,
}

impl Store {
    /// Uses `store` for the edge `me` (name and process). Must be called before the store connects.
    pub fn new(store: Arc<site::Store>, me: String) -> Store {
        let (tell, heard) = mpsc::channel(MOST_WAITING);
        store.follow(ORDERS, move |message| drop(tell.try_send(message.to_vec())));
        Store {
            store,
            me,
            heard: Arc::new(Mutex::new(Some(heard))),
        }
    }

    async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, StoreError> {
        self.store.call(question, WITHIN).await
    }

    /// Waits until the store was connected once.
    pub async fn connected(&self) {
        // The store lives as long as the process.
        let _ = self.store.connects().wait_for(|n| *n > 0).await;
    }

    /// Changes each time the store was connected.
    pub fn connects(&self) -> watch::Receiver<u64> {
        self.store.connects()
    }

    /// Returns the reports of the other edges that live.
    ///
    /// Errors: the store does not answer.
    pub async fn reports(&self) -> Result<Vec<EdgeReport>, StoreError> {
        let edges: HashMap<String, u64> = self
            .ask(cmd("HGETALL").arg(self.store.key("edges", "")))
            .await?;
        let old = date().saturating_sub(FORGET_EDGE.as_millis() as u64);
        let (gone, known): (Vec<_>, Vec<_>) = edges.into_iter().partition(|(_, at)| *at < old);
        if !gone.is_empty() {
            let mut forget = cmd("HDEL");
            forget.arg(self.store.key("edges", ""));
            gone.iter().for_each(|(edge, _)| {
                forget.arg(edge);
            });
            self.ask::<u64>(&forget).await?;
        }
        let others = known.into_iter().map(|(edge, _)| edge);
        let others = others.filter(|edge| *edge != self.me);
        let keys: Vec<_> = others.map(|edge| self.store.key("edge", &edge)).collect();
        let values = self.all(&keys).await?;
        Ok(values.iter().filter_map(|v| EdgeReport::read(v)).collect())
    }

    /// Tells the others what this edge has, for as long as a report lives.
    ///
    /// Errors: the store does not answer.
    pub async fn report(&self, report: &EdgeReport) -> Result<(), StoreError> {
        let key = self.store.key("edge", &self.me);
        self.put(&key, &report.written(), LIFETIME).await?;
        let mut list = cmd("HSET");
        list.arg(self.store.key("edges", ""))
            .arg(&self.me)
            .arg(date());
        self.ask::<i64>(&list).await.map(drop)
    }

    /// Returns the orders that hold.
    ///
    /// Errors: the store does not answer.
    pub async fn orders(&self) -> Result<BTreeMap<Subject, Order>, StoreError> {
        let all: HashMap<String, Vec<u8>> = self
            .ask(cmd("HGETALL").arg(self.store.key("orders", "")))
            .await?;
        // What another version wrote in another form is not known here.
        let one = |(field, value): (String, Vec<u8>)| {
            Some((Subject::of(&field)?, serde_json::from_slice(&value).ok()?))
        };
        Ok(all.into_iter().filter_map(one).collect())
    }

    /// Keeps an order, unless a later one is kept. Returns the one that is kept now.
    ///
    /// Errors: the store does not answer, or is full.
    pub async fn put_order(&self, subject: &Subject, order: &Order) -> Result<Order, StoreError> {
        let text = serde_json::to_string(order).map_err(unreadable)?;
        let mut put = script(PUT_ORDER, &[self.store.key("orders", "")]);
        put.arg(subject.to_string())
            .arg(text)
            .arg(order.at)
            .arg(&order.by);
        let kept: Vec<u8> = self.ask(&put).await?;
        serde_json::from_slice(&kept).map_err(unreadable)
    }

    /// Drops orders that say nothing any more.
    ///
    /// Errors: the store does not answer.
    pub async fn drop_orders(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        if subjects.is_empty() {
            return Ok(());
        }
        let mut drops = cmd("HDEL");
        drops.arg(self.store.key("orders", ""));
        subjects.iter().for_each(|s| {
            drops.arg(s.to_string());
        });
        self.ask::<u64>(&drops).await.map(drop)
    }

    /// Tells the edges that listen.
    ///
    /// Errors: the store does not answer.
    pub async fn tell(&self, news: &News) -> Result<(), StoreError> {
        let message = self.message(news)?;
        self.store.tell(ORDERS, message.as_bytes(), WITHIN).await
    }

    fn message(&self, news: &News) -> Result<String, StoreError> {
        let message = Message {
            from: self.me.clone(),
            news: news.clone(),
        };
        serde_json::to_string(&message).map_err(unreadable)
    }

    /// Takes the messages of the edges; `None`: they were taken before.
    pub fn listen(&self) -> Option<mpsc::Receiver<Vec<u8>>> {
        self.heard.lock().take()
    }

    /// Tries to lead the rebalance of a pool; returns whether this process does now and none did before.
    ///
    /// Errors: the store does not answer.
    pub async fn lead(&self, pool: &str) -> Result<bool, StoreError> {
        let mut lead = cmd("SET");
        lead.arg(self.store.key("lead", pool)).arg(&self.me);
        lead.arg("NX").arg("PX").arg(millis(LEAD));
        let set: Option<String> = self.ask(&lead).await?;
        Ok(set.is_some())
    }

    /// Leads the rebalance of a pool no longer.
    ///
    /// Errors: the store does not answer.
    pub async fn free_lead(&self, pool: &str) -> Result<(), StoreError> {
        let mut free = script(FREE_LEAD, &[self.store.key("lead", pool)]);
        self.ask::<i64>(free.arg(&self.me)).await.map(drop)
    }

    /// Publishes the whole state of a run, and keeps it; false if this process does not lead it any more.
    ///
    /// Errors: the store does not answer, or is full.
    pub async fn put_run(&self, run: &SiteRun) -> Result<bool, StoreError> {
        let text = serde_json::to_string(run).map_err(unreadable)?;
        self.publish_run(run, text).await
    }

    /// Publishes a change of a run; false if this process does not lead it any more.
    ///
    /// Errors: the store does not answer, or is full.
    pub async fn tell_run(&self, change: &SiteRun) -> Result<bool, StoreError> {
        self.publish_run(change, String::new()).await
    }

    async fn publish_run(&self, run: &SiteRun, kept: String) -> Result<bool, StoreError> {
        let keys = ["lead", "run"].map(|kind| self.store.key(kind, &run.pool));
        let mut put = script(PUT_RUN, &keys);
        put.arg(&self.me)
            .arg(millis(LEAD))
            .arg(kept)
            .arg(millis(KEEP_RUN));
        put.arg(self.store.channel(ORDERS))
            .arg(self.message(&News::Rebalance(Box::new(run.clone())))?);
        let leads: i64 = self.ask(&put).await?;
        Ok(leads == 1)
    }

    /// Returns for each pool the state of its last run, and whether an edge leads it now.
    ///
    /// Errors: the store does not answer.
    pub async fn runs(&self, pools: &[&str]) -> Result<Vec<Option<(SiteRun, bool)>>, StoreError> {
        if pools.is_empty() {
            return Ok(Vec::new());
        }
        let both = |pool: &&str| ["run", "lead"].map(|kind| self.store.key(kind, pool));
        let keys: Vec<String> = pools.iter().flat_map(both).collect();
        let values: Vec<Option<Vec<u8>>> = self.ask(cmd("MGET").arg(keys)).await?;
        let one = |both: &[Option<Vec<u8>>]| {
            // Another version may write it in another form.
            let run = serde_json::from_slice(both[0].as_deref()?).ok()?;
            Some((run, both[1].is_some()))
        };
        Ok(values.chunks_exact(2).map(one).collect())
    }

    /// Tells the leader of a rebalance this edge's part.
    ///
    /// Errors: the store does not answer.
    pub async fn part(&self, pool: &str, part: &Part) -> Result<(), StoreError> {
        let key = self.store.key("part", &format!("{pool}:{}", self.me));
        let text = serde_json::to_string(part).map_err(unreadable)?;
        self.put(&key, &text, KEEP_PART).await
    }

    /// Returns the parts of `edges`, as far as they have told one.
    ///
    /// Errors: the store does not answer.
    pub async fn parts(&self, pool: &str, edges: &[String]) -> Result<Vec<Part>, StoreError> {
        let keys = edges
            .iter()
            .map(|edge| self.store.key("part", &format!("{pool}:{edge}")));
        let values = self.all(&keys.collect::<Vec<_>>()).await?;
        let parts = values.iter().filter_map(|v| serde_json::from_slice(v).ok());
        Ok(parts.collect())
    }

    async fn put(&self, key: &str, value: &str, life: Duration) -> Result<(), StoreError> {
        let mut put = cmd("SET");
        put.arg(key).arg(value).arg("PX").arg(millis(life));
        self.ask::<String>(&put).await.map(drop)
    }

    /// Returns the values of those keys that exist.
    async fn all(&self, keys: &[String]) -> Result<Vec<Vec<u8>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<Option<Vec<u8>>> = self.ask(cmd("MGET").arg(keys)).await?;
        Ok(values.into_iter().flatten().collect())
    }
}

/// What was written or read is no value of this version.
fn unreadable(e: serde_json::Error) -> StoreError {
    StoreError::Failed(e.to_string())
}

fn script(text: &str, keys: &[String]) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(text).arg(keys.len()).arg(keys);
    eval
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
