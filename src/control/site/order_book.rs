//! The orders that hold at this edge: those of the site, and those for this edge alone.
//!
//! In: orders given here, orders read from the store or heard as news. Out: which of them to obey, which to send. Pure;
//! the date is an argument. An order about a subject holds until a later one about it. Source: issue 16 §3, §6.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::order::{Order, Subject, What};

/// Most rules about assignments that are kept; beyond it the oldest goes, as in each plugin.
pub const MAX_RULES: usize = 256;
/// Most other orders that are kept. A node has two.
const MAX_ORDERS: usize = 20_000;

/// The orders that hold, by subject.
#[derive(Default)]
pub struct OrderBook {
    known: BTreeMap<Subject, Known>,
}

struct Known {
    order: Order,
    /// Whether it is for this edge alone.
    here: bool,
    /// Whether the store has not got it yet.
    unsent: bool,
    /// When the store got it, in milliseconds since 1970; 0: it did not come from here.
    sent: u64,
}

/// An order in a form that can be sent to another process.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct SavedOrder {
    /// The field of its subject.
    subject: String,
    order: Order,
    here: bool,
    unsent: bool,
}

/// What an order from the store is to this edge.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// It is known, or a later one is known.
    Known,
    /// It is to be obeyed.
    New {
        /// An order given here that never reached the other edges and lost to this one.
        lost: Option<Order>,
    },
}

impl OrderBook {
    /// The book of a process whose predecessor has `saved` its orders.
    pub fn restore(saved: Vec<SavedOrder>) -> Self {
        let mut book = OrderBook::default();
        for SavedOrder {
            subject,
            order,
            here,
            unsent,
        } in saved
        {
            if let Some(subject) = Subject::of(&subject) {
                let known = Known {
                    order,
                    here,
                    unsent,
                    sent: 0,
                };
                book.put(subject, known);
            }
        }
        book
    }

    /// Returns the orders for a successor.
    pub fn save(&self) -> Vec<SavedOrder> {
        let saved = self.known.iter().map(|(subject, known)| SavedOrder {
            subject: subject.to_string(),
            order: known.order.clone(),
            here: known.here,
            unsent: known.unsent,
        });
        saved.collect()
    }

    /// Notes an order given here, which holds at once. `date` is now in milliseconds since 1970. `here`: it is for this
    /// edge alone. Returns the order as it is to be sent.
    pub fn give(&mut self, subject: Subject, what: What, by: &str, date: u64, here: bool) -> Order {
        let before = self.known.get(&subject);
        let order = Order {
            // Later than every order that its giver could know of, whatever the clocks say.
            at: before.map_or(date, |known| date.max(known.order.at + 1)),
            by: by.to_owned(),
            what,
        };
        let known = Known {
            order: order.clone(),
            here,
            unsent: !here,
            sent: 0,
        };
        self.put(subject, known);
        order
    }

    /// Takes an order of the site. Returns whether it is to be obeyed.
    pub fn hear(&mut self, subject: Subject, order: Order) -> Heard {
        let lost = match self.known.get_mut(&subject) {
            Some(known) if known.order == order => {
                known.unsent = false;
                return Heard::Known;
            }
            Some(known) if !order.replaces(&known.order) => return Heard::Known,
            // The other order was given before this one could be heard elsewhere.
            Some(known) if known.unsent || order.at < known.sent => {
                (!subject.is_rule()).then(|| known.order.clone())
            }
            Some(_) => None,
            None => None,
        };
        let known = Known {
            order,
            here: false,
            unsent: false,
            sent: 0,
        };
        self.put(subject, known);
        Heard::New { lost }
    }

    /// Returns the orders that the store has not got yet.
    pub fn unsent(&self) -> Vec<(Subject, Order)> {
        let unsent = self.known.iter().filter(|(_, known)| known.unsent);
        unsent.map(|(s, k)| (s.clone(), k.order.clone())).collect()
    }

    /// Notes that the store has this order, or a later one, since `date`.
    pub fn sent(&mut self, subject: &Subject, order: &Order, date: u64) {
        if let Some(known) = self.known.get_mut(subject).filter(|k| k.order == *order) {
            known.unsent = false;
            known.sent = date;
        }
    }

    /// Marks what `stored` lacks as unsent: the store has lost it, or has an earlier order. Without `stored` all that
    /// the site should know is marked.
    pub fn lacks(&mut self, stored: &BTreeMap<Subject, Order>) {
        for (subject, known) in self.known.iter_mut().filter(|(_, known)| !known.here) {
            let has = stored.get(subject);
            known.unsent |= has.is_none_or(|has| known.order.replaces(has));
        }
    }

    /// Forgets orders that say nothing any more.
    pub fn forget(&mut self, subjects: &[Subject]) {
        subjects
            .iter()
            .for_each(|subject| drop(self.known.remove(subject)));
    }

    /// Returns the order that holds.
    pub fn get(&self, subject: &Subject) -> Option<&Order> {
        self.known.get(subject).map(|known| &known.order)
    }

    /// Returns the order that holds, and whether it is for this edge alone.
    pub fn shown(&self, subject: &Subject) -> Option<(&Order, bool)> {
        self.known.get(subject).map(|k| (&k.order, k.here))
    }

    /// Returns all orders that hold.
    pub fn all(&self) -> impl Iterator<Item = (&Subject, &Order)> {
        self.known.iter().map(|(subject, k)| (subject, &k.order))
    }

    fn put(&mut self, subject: Subject, known: Known) {
        let is_rule = subject.is_rule();
        self.known.insert(subject, known);
        let most = if is_rule { MAX_RULES } else { MAX_ORDERS };
        let of_kind = || self.known.iter().filter(|(s, _)| s.is_rule() == is_rule);
        if of_kind().count() > most {
            let oldest = of_kind().min_by_key(|(_, known)| known.order.at);
            if let Some(oldest) = oldest.map(|(subject, _)| subject.clone()) {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Takes the oldest rules beyond [`MAX_RULES`] out, the same ones on every edge.
pub fn oldest_rules(stored: &mut BTreeMap<Subject, Order>) -> Vec<Subject> {
    let rules = stored.iter().filter(|(subject, _)| subject.is_rule());
    let mut rules: Vec<_> = rules.map(|(subject, o)| (o.at, subject.clone())).collect();
    rules.sort();
    let beyond = rules.len().saturating_sub(MAX_RULES);
    let oldest: Vec<_> = rules.drain(..beyond).map(|(_, subject)| subject).collect();
    oldest
        .iter()
        .for_each(|subject| drop(stored.remove(subject)));
    oldest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject::State("ls1".into())
    }

    fn order(at: u64, by: &str, what: What) -> Order {
        let by = by.to_owned();
        Order { at, by, what }
    }

    /// Aim: issue 16 §3. The later order holds, on every edge the same one, and its own order that comes back as news
    /// changes nothing. Fails if an edge obeys its own order twice, or an earlier one after a later one.
    #[test]
    fn the_later_order_holds() {
        let mut book = OrderBook::default();
        let given = book.give(subject(), What::Down, "a", 100, false);
        assert_eq!(book.unsent(), [(subject(), given.clone())]);
        assert_eq!(book.hear(subject(), given.clone()), Heard::Known);
        assert_eq!(book.unsent(), [], "it came back, so the store has it");
        let heard = book.hear(subject(), order(99, "z", What::Up));
        assert_eq!(heard, Heard::Known, "earlier");
        let up = order(100, "b", What::Up);
        let heard = book.hear(subject(), up.clone());
        assert_eq!(
            heard,
            Heard::New { lost: None },
            "the same moment, a later name"
        );
        assert_eq!(book.get(&subject()), Some(&up));
        let next = book.give(subject(), What::Down, "a", 50, false);
        assert_eq!(next.at, 101, "an order is later than what its giver knew");
    }

    /// Aim: an order given while the store is away wins or loses by its date. Fails if it is lost without a word, or
    /// wins because it comes last.
    #[test]
    fn an_order_given_alone_wins_or_loses_by_its_date() {
        let mut book = OrderBook::default();
        let alone = book.give(subject(), What::Down, "a", 100, false);
        book.lacks(&BTreeMap::new());
        let heard = book.hear(subject(), order(200, "b", What::Up));
        assert_eq!(heard, Heard::New { lost: Some(alone) });
        assert_eq!(book.unsent(), []);
        let later = book.give(subject(), What::Down, "a", 300, false);
        let stored = BTreeMap::from([(subject(), order(250, "b", What::Up))]);
        book.sent(&subject(), &later, 310);
        book.lacks(&stored);
        assert_eq!(
            book.unsent(),
            [(subject(), later.clone())],
            "the store has an older one"
        );
        // Sent at last, and heard by everybody; then another edge sends one that it had given meanwhile.
        book.sent(&subject(), &later, 500);
        let heard = book.hear(subject(), order(400, "b", What::Up));
        assert_eq!(heard, Heard::New { lost: Some(later) });
    }

    /// Fails if an order for one edge alone is sent, or holds against a later one of the site.
    #[test]
    fn an_order_for_one_edge_stays_here() {
        let mut book = OrderBook::default();
        book.hear(subject(), order(10, "b", What::Down));
        let up = book.give(subject(), What::Up, "a", 20, true);
        book.lacks(&BTreeMap::new());
        assert_eq!(book.unsent(), []);
        assert_eq!(book.shown(&subject()), Some((&up, true)));
        assert_eq!(
            book.hear(subject(), order(10, "b", What::Down)),
            Heard::Known
        );
        let heard = book.hear(subject(), order(30, "b", What::Down));
        assert_eq!(heard, Heard::New { lost: None });
    }

    /// Fails if an upgrade of the program forgets that an order is for one edge alone, or unsent.
    #[test]
    fn orders_pass_to_the_next_process() {
        let mut book = OrderBook::default();
        let given = book.give(subject(), What::Down, "a", 100, false);
        book.give(Subject::Weight("ls1".into()), What::Up, "a", 100, true);
        let bytes = rmp_serde::to_vec(&book.save()).expect("bytes");
        let saved = rmp_serde::from_slice(&bytes).expect("orders");
        let next = OrderBook::restore(saved);
        assert_eq!(next.save(), book.save());
        assert_eq!(next.unsent(), [(subject(), given)]);
    }

    #[test]
    fn rules_are_bounded() {
        let mut book = OrderBook::default();
        for before in 0..2_000 {
            let rule = Subject::Assignments {
                pool: "p".into(),
                node: None,
                before,
            };
            let what = What::Forget {
                share: 1.0,
                spares_live: false,
            };
            book.give(rule, what, "a", before, false);
        }
        book.give(subject(), What::Down, "a", 0, false);
        assert_eq!(book.all().count(), MAX_RULES + 1);
    }
}
