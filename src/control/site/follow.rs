//! Follows the orders of the site: news as they come, and all that hold after a pause or a reconnect.
//!
//! In: messages of the channel, the hash of orders. Out: orders obeyed here; orders that the store lacks are sent.
//! Source: issue 16 §3, §6.

use std::sync::Arc;
use std::time::Duration;

use super::news::{Message, News};
use super::obey::date;
use super::order::Subject;
use super::order_book::oldest_rules;
use super::store::Store;
use crate::control::Running;
use crate::site::StoreError;

/// Pause between two looks at all orders: a message may be lost without a word.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// An order that takes others back is kept for this long, so that an edge that was cut off learns of it.
const KEEP_CLEARED: Duration = Duration::from_secs(24 * 3600);

/// Follows the orders until the process ends.
pub async fn watch(running: Arc<Running>) {
    let Some(store) = running.site.store.clone() else {
        return;
    };
    let Some(mut news) = store.listen() else {
        return;
    };
    let mut connects = store.connects();
    loop {
        connects.mark_unchanged();
        // All that holds is read after the subscription began, so no order falls between the two.
        if let Err(e) = running.follow(&store).await {
            log::debug!("cannot read the orders of the site: {e}");
        }
        let until = tokio::time::Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                message = news.recv() => match message {
                    Some(bytes) => running.hear_message(&bytes).await,
                    None => return,
                },
                changed = connects.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(until) => break,
            }
        }
    }
}

impl Running {
    /// Obeys all orders of the store, and sends it those that it lacks.
    async fn follow(self: &Arc<Self>, store: &Store) -> Result<(), StoreError> {
        let mut stored = store.orders().await?;
        let mut dropped = oldest_rules(&mut stored);
        for (subject, order) in &stored {
            self.heard(subject, order);
        }
        let unsent = {
            let mut book = self.site.book.lock();
            book.lacks(&stored);
            book.unsent()
        };
        for (subject, order) in unsent {
            if dropped.contains(&subject) {
                continue;
            }
            self.send(&subject, &order).await;
        }
        let old = date().saturating_sub(KEEP_CLEARED.as_millis() as u64);
        let cleared = stored.iter().filter(|(_, o)| o.clears() && o.at < old);
        dropped.extend(cleared.map(|(subject, _)| subject.clone()));
        self.site.book.lock().forget(&dropped);
        store.drop_orders(&dropped).await
    }

    /// Obeys one message; one of this process itself is known already.
    async fn hear_message(self: &Arc<Self>, bytes: &[u8]) {
        let Ok(Message { from, news }) = serde_json::from_slice(bytes) else {
            return;
        };
        if from == self.site.key() {
            return;
        }
        match news {
            News::Order(field, order) => {
                if let Some(subject) = Subject::of(&field) {
                    self.heard(&subject, &order);
                }
            }
            News::Evict { node, by } => {
                let listed = self.listed().into_iter();
                let meant = listed.filter(|l| l.node.name == node && !l.removed);
                let closed: usize = meant.map(|l| l.node.evict()).sum();
                log::warn!("node {node}: {closed} flows closed, ordered at edge {by}");
            }
            News::Rebalance(state) => self.follow_run(&state),
            News::CancelRebalance(pool) => self.site_runs.cancel(&pool),
        }
    }
}
