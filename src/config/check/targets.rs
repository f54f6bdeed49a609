//! Finds the pools and nodes that flows of a listener can reach.
//!
//! In: a listener and the tree, in which a route's block is read as words. Out: names.

use std::collections::BTreeSet;

use super::checker::{Check, steps};
use super::plugins::ROUTES;
use crate::config::Listener;
use crate::config::tree::{Kind, Node};

/// Returns the pools and nodes that flows of `listener`, the one at `i`, can reach.
pub(super) fn of_listener(check: &Check<'_>, i: usize, listener: &Listener) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = listener.to.iter().cloned().collect();
    for (j, plugin) in listener.plugins.iter().enumerate() {
        let word = plugin.as_str();
        if word.ends_with(ROUTES)
            && let Some(block) = check.tree.find(&steps!["listeners", i, "plugins", j, word])
        {
            let mut words = Vec::new();
            texts(block, &mut words);
            let known = words.into_iter().filter(|word| check.names.is_target(word));
            all.extend(known.map(str::to_owned));
        }
    }
    all
}

/// Collects the texts in a block; its keys are none.
fn texts<'a>(node: &'a Node, into: &mut Vec<&'a str>) {
    match &node.kind {
        Kind::Scalar { text, .. } => into.push(text),
        Kind::List(items) => items.iter().for_each(|item| texts(&item.node, into)),
        Kind::Map(entries) => entries.iter().for_each(|entry| texts(&entry.node, into)),
    }
}
