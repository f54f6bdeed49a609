//! What a reload, or an operator, sets of a running node: weight, whether it is a backup, options of its sockets.
//!
//! In: its section of the configuration. Out: the values for the next flow.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Node, State};
use crate::config::NodeTcp;
use crate::config::units::Rate;
use crate::upstream::weight::{WeightOrder, Weights};

impl Node {
    /// Returns its weight relative to the other nodes of a pool; 0: no balanced flows.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Sets the weight that the file, or DNS, gives it. An ordered weight holds until that is another one.
    pub fn set_weight(&self, weight: u32) {
        self.change_weight(|weights| weights.give(weight));
    }

    /// Returns the weight that the file, or DNS, gives it.
    pub fn weight_of_file(&self) -> u32 {
        self.weights.lock().given()
    }

    /// Obeys an operator's order of a weight, and returns the weight that it has now. A node that had no weight
    /// starts slowly.
    pub fn order_weight(&self, wanted: WeightOrder) -> u32 {
        let (before, weight) = self.change_weight(|weights| weights.order(wanted));
        if before != weight {
            log::info!(
                "node {}: weight {weight}, ordered; it was {before}",
                self.name
            );
        }
        self.has_share_again(before, weight);
        weight
    }

    /// Sets the percentage of the weight that its agent said in `line`.
    pub(super) fn agent_weight(&self, percent: Option<u32>, line: &str) {
        let (before, weight) = self.change_weight(|weights| weights.set_agent(percent));
        if before != weight {
            log::info!(
                "node {}: weight {weight}, agent: {line}; it was {before}",
                self.name
            );
        }
        self.has_share_again(before, weight);
    }

    /// Returns the weight before and after the change.
    fn change_weight(&self, change: impl FnOnce(&mut Weights)) -> (u32, u32) {
        let mut weights = self.weights.lock();
        change(&mut weights);
        let weight = weights.now();
        (self.weight.swap(weight, Ordering::Relaxed), weight)
    }

    fn has_share_again(&self, before: u32, weight: u32) {
        if before == 0 && weight > 0 && self.state() == State::Up {
            self.returned(Instant::now());
        }
    }

    /// Whether it gets balanced flows only while no other node of the pool can take them.
    pub fn is_backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    /// Sets whether it is a backup.
    pub fn set_backup(&self, backup: bool) {
        self.backup.store(backup, Ordering::Relaxed);
    }

    /// Returns the options of new sockets to the node.
    pub fn tcp(&self) -> NodeTcp {
        *self.tcp.lock()
    }

    /// Sets the options of later sockets.
    pub fn set_tcp(&self, tcp: NodeTcp) {
        *self.tcp.lock() = tcp;
    }

    /// Returns the address of this machine from which to connect; `None`: the kernel chooses.
    pub fn source(&self) -> Option<IpAddr> {
        *self.source.lock()
    }

    /// Sets the address from which later connects come.
    pub fn set_source(&self, source: Option<IpAddr>) {
        *self.source.lock() = source;
    }

    /// Sets how fast flows with an answer are closed when it goes Down; `None`: all at once.
    pub fn set_evict_rate(&self, rate: Option<Rate>) {
        *self.evict_rate.lock() = rate;
    }
}
