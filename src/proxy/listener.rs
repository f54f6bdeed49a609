//! Holds a listener at run time, as its flows see it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use prometheus::IntCounter;

use super::clients::Clients;
use crate::config;
use crate::observe::end_reason::EndReason;
use crate::observe::metrics;
use crate::route::Table;
use crate::stream::relay::Rules;
use crate::stream::socket;
use crate::tls::TlsFront;

/// A listener at run time. A reload swaps its contents, and live client connections use the new ones from
/// their next request on.
pub struct Listener {
    /// Name in logs and metrics.
    pub name: String,
    /// The routing table.
    pub table: ArcSwap<Table>,
    /// Certificates, where TLS ends here.
    pub tls: Option<TlsFront>,
    /// The listener's section of the configuration.
    pub conf: ArcSwap<config::Listener>,
    /// `bytes` of `max_hidden`: most hidden bytes of a flow.
    pub max_hidden: AtomicU64,
    /// `bulk` of `max_hidden`: a flow that carries bulk may use a larger window.
    pub bulk: AtomicBool,
    /// Connections and live flows by client address.
    pub clients: Arc<Clients>,
    /// The counters that almost every flow touches.
    pub counters: Counters,
}

/// Counters that are looked up once, because finding one by its labels costs 28 ns.
pub struct Counters {
    /// Flows that ended as `done`.
    pub done: IntCounter,
    /// Bytes to the nodes.
    pub up: IntCounter,
    /// Bytes to the clients.
    pub down: IntCounter,
}

impl Counters {
    fn of(listener: &str) -> Self {
        let m = metrics::get();
        let done = EndReason::Done.as_str();
        Counters {
            done: m.flows.with_label_values(&[listener, done]),
            up: m.bytes.with_label_values(&[listener, "up"]),
            down: m.bytes.with_label_values(&[listener, "down"]),
        }
    }
}

impl Listener {
    /// Makes a listener from its section.
    pub fn new(conf: &config::Listener, table: Table, tls: Option<TlsFront>) -> Arc<Self> {
        Arc::new(Listener {
            name: conf.name.clone(),
            table: ArcSwap::from_pointee(table),
            tls,
            max_hidden: AtomicU64::new(conf.max_hidden.bytes.0),
            bulk: AtomicBool::new(conf.max_hidden.bulk),
            clients: Arc::default(),
            counters: Counters::of(&conf.name),
            conf: ArcSwap::from_pointee(conf.clone()),
        })
    }

    /// Applies a changed section and its routing table.
    pub fn change(&self, conf: &config::Listener, table: Table) {
        self.table.store(Arc::new(table));
        let hidden = conf.max_hidden;
        self.max_hidden.store(hidden.bytes.0, Ordering::Relaxed);
        self.bulk.store(hidden.bulk, Ordering::Relaxed);
        self.conf.store(Arc::new(conf.clone()));
    }

    /// Whether `client` is a proxy whose word about its own clients a plugin trusts. Its connections have no
    /// limit of their own, because they carry many clients.
    pub fn is_proxy(&self, client: IpAddr) -> bool {
        let table = self.table.load();
        table.plugins.trusts.iter().any(|t| t.contains(client))
    }

    /// Returns the limits of the listener's relays.
    pub fn rules(&self) -> Rules {
        Rules {
            unsent: socket::unsent_allowance(self.max_hidden.load(Ordering::Relaxed)),
            bulk: self.bulk.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(max_hidden: &str) -> config::Listener {
        let yaml = format!("{{ name: a, bind: [], mode: http, max_hidden: {max_hidden} }}");
        serde_yaml::from_str(&yaml).expect("a listener")
    }

    fn table() -> Table {
        Table {
            plugins: Default::default(),
            hides_forwarding: false,
            default: None,
            pools: Arc::default(),
            nodes: Arc::default(),
        }
    }

    /// Aim: a reload changes both halves of `max_hidden`. Fails if one is read at the start only.
    #[test]
    fn a_listener_takes_over_the_hidden_bytes_of_its_section() {
        let listener = Listener::new(&section("{ bytes: 64KiB, bulk: false }"), table(), None);
        let now = || {
            let bytes = listener.max_hidden.load(Ordering::Relaxed);
            (bytes, listener.bulk.load(Ordering::Relaxed))
        };
        assert_eq!(now(), (64 * 1024, false));
        listener.change(&section("1MiB"), table());
        assert_eq!(now(), (1024 * 1024, true));
        listener.change(&section("{ bulk: false }"), table());
        assert_eq!(now(), (32 * 1024, false));
    }
}
