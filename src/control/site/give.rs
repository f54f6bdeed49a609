//! Gives an operator's order: here at once, and to the whole site unless it is for this edge alone.
//!
//! In: what the order is about and what it says. Out: how far it got. Source: issue 16 §3, §6.

use std::sync::Arc;

use pushgate_plugins::api::{Forget, unix_seconds};

use super::news::News;
use super::obey::{date, obey};
use super::order::{Order, Subject, What};
use super::order_book::Heard;
use crate::clock;
use crate::control::Running;
use crate::control::rebalance::TICK;

/// How far an order got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// No store is configured, or the order is for this edge alone.
    Here,
    /// The store has it, and the edges that follow the store obey it.
    Everywhere,
    /// The store is away. The other edges obey when it is back, unless a later order is given meanwhile.
    Later,
    /// The store is away, and the order is not passed on later.
    NotElsewhere,
    /// Another edge gave a later order, which holds instead.
    Overruled(String),
}

impl Given {
    /// Returns the word of the API; `None`: there is nothing to say, because there is no site.
    pub fn shown(&self) -> Option<String> {
        match self {
            Given::Here => None,
            Given::Everywhere => Some("everywhere".into()),
            Given::Later => Some("later".into()),
            Given::NotElsewhere => Some("not elsewhere".into()),
            Given::Overruled(by) => Some(format!("overruled by {by}")),
        }
    }
}

impl Running {
    /// Gives an order. It holds here when this returns. `here`: it is for this edge alone.
    pub(in crate::control) async fn give(
        self: &Arc<Self>,
        subject: Subject,
        what: What,
        here: bool,
    ) -> Given {
        let site = self.site.clone();
        let alone = here || site.store.is_none();
        let order = {
            let mut book = site.book.lock();
            book.give(subject.clone(), what, &site.name, date(), alone)
        };
        self.obey(&subject, &order);
        match &site.store {
            Some(_) if !alone => self.send(&subject, &order).await,
            _ => Given::Here,
        }
    }

    /// Has the other edges close their live flows at the node called `name`, once.
    pub(in crate::control) async fn evict_elsewhere(&self, name: &str) -> Given {
        let Some(store) = &self.site.store else {
            return Given::Here;
        };
        let news = News::Evict {
            node: name.to_owned(),
            by: self.site.name.clone(),
        };
        match store.tell(&news).await {
            Ok(()) => Given::Everywhere,
            // An eviction is for now: it is not made up for later.
            Err(_) => Given::NotElsewhere,
        }
    }

    /// Sends an order that holds here to the store, and tells the others.
    pub(in crate::control) async fn send(
        self: &Arc<Self>,
        subject: &Subject,
        order: &Order,
    ) -> Given {
        let Some(store) = &self.site.store else {
            return Given::Here;
        };
        let Ok(holds) = store.put_order(subject, order).await else {
            return Given::Later;
        };
        self.site.book.lock().sent(subject, order, date());
        if holds == *order {
            let news = News::Order(subject.to_string(), order.clone());
            // A lost word is no loss: each edge reads all orders again every few seconds.
            let _ = store.tell(&news).await;
            return Given::Everywhere;
        }
        self.heard(subject, &holds);
        Given::Overruled(format!("`{}` of edge {}", holds.what, holds.by))
    }

    /// Takes an order of the site, and obeys it if it is new.
    pub(in crate::control) fn heard(self: &Arc<Self>, subject: &Subject, order: &Order) {
        let heard = self.site.book.lock().hear(subject.clone(), order.clone());
        let Heard::New { lost } = heard else {
            return;
        };
        if let Some(lost) = lost {
            log::warn!(
                "{subject}: the order `{}` given here while the store was away lost to `{}`, given later at edge {}",
                lost.what,
                order.what,
                order.by
            );
        } else if !subject.is_rule() {
            log::warn!("{subject}: {}, ordered at edge {}", order.what, order.by);
        }
        self.obey(subject, order);
    }

    /// Puts an order of the site in force.
    pub(in crate::control) fn obey(self: &Arc<Self>, subject: &Subject, order: &Order) {
        match subject {
            Subject::State(name) | Subject::Weight(name) => {
                let listed = self.listed().into_iter();
                let meant = listed.filter(|l| l.node.name == *name && !l.removed);
                meant.for_each(|l| obey(&l.node, order));
            }
            Subject::Assignments { .. } => {
                if let Some(rule) = order.rule(subject) {
                    self.forget_in_time(rule);
                }
            }
        }
    }

    /// Forgets what a rule covers, once the date has reached the moment of the rule: what is learned until then is
    /// covered too, and would be moved twice.
    fn forget_in_time(self: &Arc<Self>, rule: Forget) {
        if unix_seconds(clock::date()) >= rule.before {
            return self.forget_by(&rule);
        }
        let running = self.clone();
        tokio::spawn(async move {
            while unix_seconds(clock::date()) < rule.before {
                tokio::time::sleep(TICK).await;
            }
            running.forget_by(&rule);
        });
    }
}
