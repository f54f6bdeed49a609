//! One session: the log of lines for its client, and the ticker that appends updates.
//!
//! In: controls. Out: numbered lines. A stream sends them from where the last one stopped, so that a rebind
//! or a recovery (`LS_recovery_from`) loses and repeats nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::node::request::param;

/// How the client gets its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One WebSocket message or more for each update.
    WsStreaming,
    /// Each bind on the WebSocket is answered with the pending lines.
    WsPolling,
    /// One long answer.
    HttpStreaming,
    /// Each request is answered with the pending lines.
    HttpPolling,
    /// The short answer that only creates an HTTP session.
    HttpCreate,
}

/// One client's session.
pub struct Session {
    /// Begins with the name of its node.
    pub id: String,
    lines: Mutex<Vec<String>>,
    /// The log's head, which wakes streams.
    head: watch::Sender<Head>,
    subscriptions: Mutex<BTreeMap<u32, Subscription>>,
    /// The number of the session's current stream; a newer one ends the one before.
    stream: watch::Sender<u64>,
    /// The next line a stream sends.
    cursor: Mutex<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    lines: usize,
    /// Code of its END.
    ended: Option<u32>,
}

struct Subscription {
    items: usize,
    fields: usize,
    ticks: u64,
}

impl Session {
    /// A session whose subscriptions get an update every `every`.
    pub(super) fn start(id: String, every: Duration) -> Arc<Session> {
        let session = Arc::new(Session {
            id,
            lines: Mutex::default(),
            head: watch::Sender::new(Head::default()),
            subscriptions: Mutex::default(),
            stream: watch::Sender::new(0),
            cursor: Mutex::default(),
        });
        tokio::spawn(ticker(
            Arc::downgrade(&session),
            session.head.subscribe(),
            every,
        ));
        session
    }

    /// Ends the session; its stream sends the code.
    pub(super) fn end(&self, code: u32) {
        self.head.send_modify(|h| h.ended = Some(code));
    }

    /// Makes the caller's stream the session's current one, from line `from` or where the last one stopped.
    pub(super) fn attach(self: &Arc<Self>, from: Option<usize>) -> Stream {
        self.stream.send_modify(|n| *n += 1);
        let number = *self.stream.borrow();
        if let Some(from) = from {
            *self.cursor.lock() = from;
        }
        Stream::resume(self.clone(), StreamNumber(number))
    }

    /// Asks the session's stream to end, so that its client binds again.
    pub(super) fn force_rebind(&self) {
        self.stream.send_modify(|n| *n += 1);
    }

    /// Executes one control line; returns `REQOK` or `REQERR`.
    pub(super) fn control(&self, form: &str) -> String {
        let get = |name: &str| param(form, name).unwrap_or_default();
        let (request, op) = (get("LS_reqId"), get("LS_op"));
        match op.as_str() {
            "add" => self.subscribe(&get("LS_subId"), &get("LS_group"), &get("LS_schema")),
            "delete" => {
                let id = get("LS_subId");
                self.subscriptions
                    .lock()
                    .remove(&id.parse().unwrap_or_default());
                self.push(format!("UNSUB,{id}"));
            }
            "force_rebind" => self.force_rebind(),
            "constrain" | "reconf" => {}
            "destroy" => self.end(CLOSED),
            other => return format!("REQERR,{request},67,unknown operation {other}\r\n"),
        }
        format!("REQOK,{request}\r\n")
    }

    /// Takes a message; the client gets a line that it was processed.
    pub(super) fn message(&self, form: &str) -> String {
        let sequence = param(form, "LS_sequence").unwrap_or_else(|| "*".to_owned());
        if let Some(number) = param(form, "LS_msg_prog") {
            self.push(format!("MSGDONE,{sequence},{number},"));
        }
        match param(form, "LS_reqId") {
            Some(request) => format!("REQOK,{request}\r\n"),
            None => String::new(),
        }
    }

    fn subscribe(&self, id: &str, group: &str, schema: &str) {
        let (items, fields) = (group.split(' ').count(), schema.split(' ').count());
        let number = id.parse().unwrap_or_default();
        self.push(format!("SUBOK,{id},{items},{fields}"));
        let subscription = Subscription {
            items,
            fields,
            ticks: 0,
        };
        self.subscriptions.lock().insert(number, subscription);
    }

    fn tick(&self) {
        let mut updates = Vec::new();
        for (id, subscription) in self.subscriptions.lock().iter_mut() {
            subscription.ticks += 1;
            let fields = vec![subscription.ticks.to_string(); subscription.fields].join("|");
            updates.extend((1..=subscription.items).map(|item| format!("U,{id},{item},{fields}")));
        }
        updates.into_iter().for_each(|line| self.push(line));
    }

    fn push(&self, line: String) {
        self.lines.lock().push(line);
        self.head.send_modify(|h| h.lines += 1);
    }
}

/// Appends updates, starting with the line of the subscription, until the session is ended or dropped.
async fn ticker(
    session: std::sync::Weak<Session>,
    mut head: watch::Receiver<Head>,
    every: Duration,
) {
    if head.wait_for(|h| h.lines > 0).await.is_err() {
        return;
    }
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        match session.upgrade() {
            Some(session) if session.head.borrow().ended.is_none() => session.tick(),
            _ => return,
        }
    }
}

/// The one stream of a session; an older one ends when a newer one begins.
pub struct Stream {
    session: Arc<Session>,
    number: StreamNumber,
}

/// Number of a stream of a session; only the highest may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamNumber(u64);

/// The next step of a stream.
pub enum Next {
    /// Send these lines.
    Lines(String),
    /// Send LOOP and end: the client binds again.
    Rebind,
    /// Send this END: the session is over.
    Ended(String),
}

impl Stream {
    /// The stream `number` of `session`.
    pub fn resume(session: Arc<Session>, number: StreamNumber) -> Stream {
        Stream { session, number }
    }

    /// Its number.
    pub fn number(&self) -> StreamNumber {
        self.number
    }

    /// Waits for lines, a rebind or the end.
    pub async fn next(&self) -> Next {
        let mut head = self.session.head.subscribe();
        let mut stream = self.session.stream.subscribe();
        loop {
            if *stream.borrow_and_update() != self.number.0 {
                return Next::Rebind;
            }
            if let Some(lines) = self.take() {
                return Next::Lines(lines);
            }
            if let Some(code) = head.borrow_and_update().ended {
                return Next::Ended(format!("END,{code},closed\r\n"));
            }
            // Both senders live in the session this stream holds.
            tokio::select! {
                _ = head.changed() => {}
                _ = stream.changed() => {}
            }
        }
    }

    /// The number of the next line, as in PROG after a recovery.
    pub fn progress(&self) -> usize {
        *self.session.cursor.lock()
    }

    fn take(&self) -> Option<String> {
        let lines = self.session.lines.lock();
        let mut cursor = self.session.cursor.lock();
        let new = lines.get(*cursor..).unwrap_or_default();
        if new.is_empty() {
            return None;
        }
        *cursor = lines.len();
        Some(new.iter().map(|line| format!("{line}\r\n")).collect())
    }
}

/// END: closed on the client's request.
pub(super) const CLOSED: u32 = 31;
/// END: the session has expired; the client creates a new one.
pub(super) const EXPIRED: u32 = 48;
