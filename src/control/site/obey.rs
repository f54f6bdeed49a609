//! Puts orders in force at this edge: of nodes, and of assignments.
//!
//! In: orders that hold. Out: states and weights of nodes, rules that the plugins obey. Source: issue 16 §3.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::order::{Order, Subject, What};
use super::order_book::OrderBook;
use crate::clock;
use crate::route::Table;
use crate::upstream;
use crate::upstream::{Node, WeightOrder};

/// Returns the date in milliseconds since 1970.
pub fn date() -> u64 {
    let since = clock::date().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}

/// Puts an order in force at a node.
pub fn obey(node: &Arc<Node>, order: &Order) {
    match &order.what {
        What::Up => {
            node.overrule_agent();
            node.order(upstream::Order::Up);
        }
        What::Down => node.order(upstream::Order::Down),
        What::Drain { .. } => {
            if let Some(terms) = order.terms(date(), Instant::now()) {
                node.drain(terms);
            }
        }
        What::Weight { to, of } => match to.parse::<WeightOrder>() {
            Ok(to) if *of == node.weight_of_file() => drop(node.order_weight(to)),
            Ok(_) => log::warn!(
                "node {}: the order `weight {to}` of edge {} does not hold here: this file gives the node another weight",
                node.name,
                order.by
            ),
            Err(_) => {}
        },
        What::Forget { .. } => {}
    }
}

/// Puts the orders that hold in force at nodes that have just been made.
pub fn obey_at_start(book: &OrderBook, nodes: &[Arc<Node>]) {
    for node in nodes {
        let subjects = [
            Subject::State(node.name.clone()),
            Subject::Weight(node.name.clone()),
        ];
        for order in subjects.iter().filter_map(|subject| book.get(subject)) {
            if !order.clears() {
                log::warn!(
                    "node {}: {}, ordered at edge {} before",
                    node.name,
                    order.what,
                    order.by
                );
                obey(node, order);
            }
        }
    }
}

/// Lets the plugins of a routing table forget what the orders that hold say. Again is as good as once.
pub fn forget_at_start(book: &OrderBook, table: &Table) {
    for rule in book
        .all()
        .filter_map(|(subject, order)| order.rule(subject))
    {
        table.plugins.sticky.iter().for_each(|p| p.forget(&rule));
    }
}
