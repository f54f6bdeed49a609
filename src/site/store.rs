//! The store as the rest of the edge sees it: questions with deadlines, and news of other edges.
//!
//! One task ([`Store::run`]) owns the connection, and connects again when it breaks. Questions come from any thread.
//! A question of a flow is not even sent while the store is away or slow, so no flow waits for a store that was found
//! to be so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, PushInfo, PushKind, Value, cmd};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::connection::{Connected, Pushes, connect};
use super::{Secrets, State, Status, StoreError};
use crate::clock;
use crate::config::Redis;
use crate::observe::metrics;

/// Pause before the first and the later attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Time between two pings.
const PING: Duration = Duration::from_secs(1);
/// A server that does not answer a ping within this is away.
const DEADLINE: Duration = Duration::from_secs(3);
/// Late answers in a row after which the store is slow. A single one may be the network's.
const LATE: u32 = 3;
/// Pings in a row, answered as soon as a flow needs it, after which a slow store serves again; values in a row that
/// a full one takes. Everything is told again then, so it must not happen each second.
const QUICK: u32 = 3;

/// News that wait to be read. Beyond that the edge connects anew, and reads what is in force.
const NEWS: usize = 10_000;

/// What is published under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topic(pub &'static str);

type Handler = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The store of the site.
pub struct Store {
    conf: Redis,
    secrets: Secrets,
    link: ArcSwapOption<MultiplexedConnection>,
    /// Whether flows may ask.
    serves: AtomicBool,
    late: AtomicU32,
    /// Whether a connection was tried.
    begun: AtomicBool,
    status: Mutex<Status>,
    topics: Mutex<HashMap<String, Handler>>,
    connects: watch::Sender<u64>,
    /// Notified when an answer showed that the server is no master.
    demoted: Notify,
}

impl Store {
    /// Makes a store that is away until [`Store::run`] has connected.
    pub fn new(conf: Redis, secrets: Secrets) -> Arc<Store> {
        let store = Store {
            conf,
            secrets,
            link: ArcSwapOption::empty(),
            serves: AtomicBool::new(false),
            late: AtomicU32::new(0),
            begun: AtomicBool::new(false),
            status: Mutex::new(Status {
                state: State::Away,
                since: Instant::now(),
                why: "not connected yet".to_owned(),
            }),
            topics: Mutex::default(),
            connects: watch::channel(0).0,
            demoted: Notify::new(),
        };
        store.show(State::Away);
        Arc::new(store)
    }

    /// Longest time that a flow waits for the store, all its questions together.
    pub fn wait(&self) -> Duration {
        self.conf.wait.0
    }

    /// Returns the name of a key: `PREFIX:KIND:REST`.
    pub fn key(&self, kind: &str, rest: &str) -> String {
        format!("{}:{kind}:{rest}", self.conf.prefix.0)
    }

    /// Returns what the store does now.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Changes each time the store serves again and what other edges publish arrives again. News of the time before
    /// are lost, so whoever follows a topic then reads what is in force.
    pub fn connects(&self) -> watch::Receiver<u64> {
        self.connects.subscribe()
    }

    /// Whether there is a connection, over which the server may be slow or take nothing.
    pub fn is_connected(&self) -> bool {
        self.link.load().is_some()
    }

    /// Whether a flow may ask.
    pub fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Notes whether a flow got its answer within [`Store::wait`]. After several that did not, no flow asks until the
    /// store answers in time again.
    pub fn waited(&self, in_time: bool) {
        if in_time {
            self.late.store(0, Ordering::Relaxed);
        } else if self.late.fetch_add(1, Ordering::Relaxed) + 1 >= LATE {
            let why = format!(
                "{LATE} answers in a row took longer than {}",
                self.conf.wait
            );
            self.change(State::Slow, why);
        }
    }

    /// Returns what distinguishes this site from others: the prefix, and the password of the store.
    pub(super) fn secret(&self) -> String {
        let password = self.secrets.password.as_deref().unwrap_or_default();
        format!("{}\0{password}", self.conf.prefix.0)
    }

    /// Asks, whether flows may or not.
    ///
    /// Errors: there is no connection, no answer within `within`, or the server refuses. What was asked may have
    /// happened nevertheless, unless the server refused.
    pub async fn call<T: FromRedisValue>(
        &self,
        question: &Cmd,
        within: Duration,
    ) -> Result<T, StoreError> {
        let link = self.link.load_full().ok_or(StoreError::Away)?;
        let mut link = MultiplexedConnection::clone(&link);
        let answer = timeout(within, question.query_async::<T>(&mut link)).await;
        self.judge(answer.map_err(|_| StoreError::Late).and_then(|a| Ok(a?)))
    }

    /// As [`Store::call`] for several questions in one packet.
    pub async fn call_all<T: FromRedisValue>(
        &self,
        questions: &redis::Pipeline,
        within: Duration,
    ) -> Result<T, StoreError> {
        let link = self.link.load_full().ok_or(StoreError::Away)?;
        let mut link = MultiplexedConnection::clone(&link);
        let answer = timeout(within, questions.query_async::<T>(&mut link)).await;
        self.judge(answer.map_err(|_| StoreError::Late).and_then(|a| Ok(a?)))
    }

    /// Calls `handler` with each message that an edge, this one too, publishes under `topic`. It must not block.
    pub fn follow(&self, topic: Topic, handler: impl Fn(&[u8]) + Send + Sync + 'static) {
        let channel = self.channel(topic);
        self.topics.lock().insert(channel, Arc::new(handler));
    }

    /// Tells all edges that follow `topic`. Errors as [`Store::call`]: nobody may have heard it.
    pub async fn tell(
        &self,
        topic: Topic,
        message: &[u8],
        within: Duration,
    ) -> Result<(), StoreError> {
        let mut publish = cmd("PUBLISH");
        publish.arg(self.channel(topic)).arg(message);
        self.call::<Value>(&publish, within).await.map(drop)
    }

    /// Returns the channel of a topic. It has the number of the database, because channels are those of the whole server.
    pub fn channel(&self, topic: Topic) -> String {
        let database = self.conf.url.0.first().map_or(0, |url| url.database);
        self.key("news", &format!("{database}:{}", topic.0))
    }

    fn judge<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let result = match &answer {
            Ok(_) => "ok",
            Err(StoreError::Away) => "away",
            Err(StoreError::Late) => "late",
            Err(StoreError::Full(why)) => {
                self.change(State::Full, why.clone());
                "full"
            }
            Err(StoreError::NoMaster(_)) => {
                self.demoted.notify_one();
                "failed"
            }
            Err(StoreError::Failed(_)) => "failed",
        };
        metrics::get()
            .store_questions
            .with_label_values(&[result])
            .inc();
        answer
    }
}

/// The task that owns the connection.
impl Store {
    /// Connects, and connects again whenever the connection breaks; never ends.
    pub async fn run(self: Arc<Self>) {
        let mut pause = PAUSE.0;
        loop {
            let (sender, mut news) = channel(NEWS);
            let lost = Arc::new(Notify::new());
            let pushes = Pushes {
                sender,
                lost: lost.clone(),
            };
            let why = match connect(&self.conf, &self.secrets, &pushes).await {
                Ok(connected) => {
                    let since = Instant::now();
                    let why = self.hold(connected, &mut news, &lost).await;
                    self.link.store(None);
                    if since.elapsed() > PAUSE.1 {
                        pause = PAUSE.0;
                    }
                    why
                }
                Err(why) => why,
            };
            self.change(State::Away, why);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Serves over one connection until it breaks; returns why.
    async fn hold(
        &self,
        mut at: Connected,
        news: &mut Receiver<PushInfo>,
        lost: &Notify,
    ) -> String {
        let channels: Vec<String> = self.topics.lock().keys().cloned().collect();
        for channel in channels {
            let subscribed = timeout(DEADLINE, at.connection.subscribe(&channel)).await;
            match subscribed {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return format!("{}: cannot subscribe to {channel}: {e}", at.server),
                Err(_) => {
                    return format!("{}: no answer within {} s", at.server, DEADLINE.as_secs());
                }
            }
        }
        self.link.store(Some(Arc::new(at.connection.clone())));
        self.late.store(0, Ordering::Relaxed);
        self.change(State::Ok, at.server.clone());
        self.connects.send_modify(|n| *n += 1);
        let pings = self.ping();
        tokio::pin!(pings);
        loop {
            tokio::select! {
                push = news.recv() => push.iter().for_each(|push| self.deliver(push)),
                why = &mut pings => return format!("{}: {why}", at.server),
                _ = at.driver.join_next() => return format!("{}: closed the connection", at.server),
                () = lost.notified() => return format!("{}: news came faster than they could be read", at.server),
                () = self.demoted.notified() => return format!("{}: is no master now", at.server),
            }
        }
    }

    fn deliver(&self, push: &PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        if let [Value::BulkString(channel), Value::BulkString(message)] = push.data.as_slice() {
            let handler = str::from_utf8(channel)
                .ok()
                .and_then(|c| self.topics.lock().get(c).cloned());
            if let Some(handler) = handler {
                handler(message);
            }
        }
    }

    /// Pings until an answer is missing; returns why. Finds out when a slow or full store serves again.
    async fn ping(&self) -> String {
        let mut ticks = interval(PING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quick = 0;
        loop {
            ticks.tick().await;
            let begun = Instant::now();
            if let Err(e) = self.call::<Value>(&cmd("PING"), DEADLINE).await {
                return e.to_string();
            }
            let state = self.status.lock().state;
            let in_time = begun.elapsed() <= self.conf.wait.0;
            let is_good = match state {
                State::Slow => in_time,
                State::Full => self.takes().await,
                State::Ok | State::Away => false,
            };
            quick = if is_good { quick + 1 } else { 0 };
            if quick >= QUICK {
                quick = 0;
                self.late.store(0, Ordering::Relaxed);
                self.change(State::Ok, "it serves again".to_owned());
                // What it did not take meanwhile is told again.
                self.connects.send_modify(|n| *n += 1);
            }
        }
    }

    /// Whether the server takes a small value.
    async fn takes(&self) -> bool {
        let mut set = cmd("SET");
        set.arg(self.key("room", "")).arg(1).arg("PX").arg(1_000);
        self.call::<Value>(&set, DEADLINE).await.is_ok()
    }

    /// Tells the log and the metrics of a change; nothing if there is none.
    fn change(&self, state: State, why: String) {
        {
            let mut status = self.status.lock();
            // An answer that comes late from a lost connection says nothing of it.
            if status.state == State::Away && !matches!(state, State::Ok | State::Away) {
                return;
            }
            // Flows may ask a full store, but must not wait again for one that is also slow.
            if status.state == State::Slow && state == State::Full {
                return;
            }
            // The first failure is told; of later ones only the reason is noted.
            let is_first = !self.begun.swap(true, Ordering::Relaxed);
            if status.state == state && !is_first {
                status.why = why;
                return;
            }
            *status = Status {
                state,
                since: Instant::now(),
                why: why.clone(),
            };
            self.serves
                .store(matches!(state, State::Ok | State::Full), Ordering::Relaxed);
        }
        match state {
            State::Ok => log::info!("store: ok: {why}"),
            _ => log::warn!("store: {}: {why}; this edge goes on alone", state.as_str()),
        }
        self.show(state);
    }

    fn show(&self, state: State) {
        let metrics = metrics::get();
        for one in State::ALL {
            let gauge = metrics.store_state.with_label_values(&[one.as_str()]);
            gauge.set((one == state).into());
        }
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.store_since.set(now.as_secs() as i64);
    }
}

#[cfg(test)]
mod tests;
