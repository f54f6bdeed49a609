//! All metrics in one table. They have the prefix `pushgate_` and base units. Label sets are closed:
//! listeners, nodes and words of this program, never what a client sent.

use std::collections::HashMap;
use std::sync::OnceLock;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::process::Process;

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident $name:literal [$($label:literal),*];)+) => {
        /// The metrics of this process.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: metrics!(@type $kind),)+
        }

        impl Metrics {
            fn new() -> Self {
                let registry = Registry::new();
                $(
                    let $field = metrics!(@new $kind, $name, concat!($($help),+).trim(), &[$($label),*]);
                    registry.register(Box::new($field.clone())).expect("names in the table are unique");
                )+
                registry.register(Box::new(Process::of_this())).expect("names beside those of the table");
                Metrics { registry, $($field,)+ }
            }
        }

        /// Name, kind, labels and meaning of every metric, for the docs.
        pub const TABLE: &[(&str, &str, &[&str], &str)] =
            &[$(($name, stringify!($kind), &[$($label),*], concat!($($help),+))),+];
    };
    (@type counter) => { IntCounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type ratio) => { GaugeVec };
    (@type plain_gauge) => { IntGauge };
    (@type seconds) => { HistogramVec };
    (@type long_seconds) => { HistogramVec };
    (@type bytes) => { HistogramVec };
    (@new counter, $name:expr, $help:expr, $labels:expr) => {
        IntCounterVec::new(Opts::new($name, $help), $labels).expect("legal names")
    };
    (@new gauge, $name:expr, $help:expr, $labels:expr) => {
        IntGaugeVec::new(Opts::new($name, $help), $labels).expect("legal names")
    };
    (@new ratio, $name:expr, $help:expr, $labels:expr) => {
        GaugeVec::new(Opts::new($name, $help), $labels).expect("legal names")
    };
    (@new plain_gauge, $name:expr, $help:expr, $labels:expr) => {
        IntGauge::new($name, $help).expect("legal names")
    };
    (@new seconds, $name:expr, $help:expr, $labels:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()), $labels).expect("legal names")
    };
    (@new long_seconds, $name:expr, $help:expr, $labels:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(LONG_SECONDS.to_vec()), $labels).expect("legal names")
    };
    (@new bytes, $name:expr, $help:expr, $labels:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(BYTES.to_vec()), $labels).expect("legal names")
    };
}

const SECONDS: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// For waits and silences: the limits of well-known devices (60 s, 300 s, 350 s, 3600 s) have a bucket of their own.
const LONG_SECONDS: &[f64] = &[
    0.3, 1.0, 3.0, 10.0, 30.0, 55.0, 65.0, 120.0, 180.0, 240.0, 295.0, 320.0, 370.0, 600.0, 900.0,
    1800.0, 3600.0, 7200.0, 86400.0,
];
const BYTES: &[f64] = &[
    0.0, 1024.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 262144.0, 1048576.0,
];

metrics! {
    /// Client connections open.
    connections: gauge "pushgate_connections" ["listener"];
    /// Client connections accepted.
    accepted: counter "pushgate_connections_total" ["listener"];
    /// Client connections that ended before their first request: failed TLS handshakes, limits reached.
    refused: counter "pushgate_connections_refused_total" ["listener", "reason"];
    /// Connections and requests that waited because their client was above a rate, by the rate's key.
    rate_waits: counter "pushgate_rate_waits_total" ["listener", "limit"];
    /// Idle client connections closed to make room for others, by what ran short.
    closed_idle: counter "pushgate_idle_connections_closed_total" ["reason"];
    /// Memory that counts towards `memory.limit`, in bytes.
    memory: plain_gauge "pushgate_memory_bytes" [];
    /// `memory.limit` in bytes.
    memory_limit: plain_gauge "pushgate_memory_limit_bytes" [];
    /// Client connections of a thread: `data-N` serves them, `handshake-N` does their TLS handshakes.
    thread_connections: gauge "pushgate_thread_connections" ["thread"];
    /// Flows ended, by end reason.
    flows: counter "pushgate_flows_total" ["listener", "reason"];
    /// Requests answered by the edge itself, by status.
    answered: counter "pushgate_answers_total" ["listener", "status"];
    /// HTTP/2 connections ended because of what the client sent, by limit or error.
    http2_ended: counter "pushgate_http2_ended_total" ["listener", "reason"];
    /// Flows assigned to a node, by how the node was chosen.
    assigned: counter "pushgate_assignments_total" ["node", "how"];
    /// Stuck or pinned flows that their node did not get, by limit: `max_flows_hard` or `cookie`.
    stuck_refused: counter "pushgate_stuck_refused_total" ["node", "limit"];
    /// Live flows of a node.
    node_flows: gauge "pushgate_node_flows" ["node"];
    /// Live flows of a node at all edges of the site.
    node_site_flows: gauge "pushgate_node_site_flows" ["node"];
    /// Edges of the site that live, this one included; 0 without a store.
    site_edges: plain_gauge "pushgate_site_edges" [];
    /// Edges of the site that differ from this one in version, configuration or by having the same name.
    site_differing_edges: plain_gauge "pushgate_site_differing_edges" [];
    /// 1 for the state a node is in, 0 for its other states.
    node_state: gauge "pushgate_node_state" ["node", "state"];
    /// 1 if a node is a backup, else 0.
    node_backup: gauge "pushgate_node_backup" ["node"];
    /// Changes of a node's state, by the new state.
    node_changes: counter "pushgate_node_changes_total" ["node", "state"];
    /// Duration of health checks.
    check_seconds: seconds "pushgate_check_seconds" ["node"];
    /// Health checks made, by result: `pass`, `fail` or `error`.
    checks: counter "pushgate_health_checks_total" ["node", "result"];
    /// Deprecated, gone in the next version: use `pushgate_health_checks_total`.
    old_checks: counter "pushgate_checks_total" ["node", "result"];
    /// Questions to the agents of nodes, by result: `pass`, `fail` or `error`.
    agent_checks: counter "pushgate_agent_checks_total" ["node", "result"];
    /// Weight that a node has now: that of the file, by its agent's percentage, or by order.
    node_weight: gauge "pushgate_node_weight" ["node"];
    /// Flows ended because their node went Down.
    evicted: counter "pushgate_evicted_flows_total" ["node"];
    /// Flows that wait for a node because all nodes are at their limits.
    queued: gauge "pushgate_queued_flows" ["pool"];
    /// Time flows waited for a node, whether they got one or not.
    queue_seconds: seconds "pushgate_queue_seconds" ["pool"];
    /// Flows that got no node from the queue of their pool, by reason.
    queue_refused: counter "pushgate_queue_refused_total" ["pool", "reason"];
    /// Flows closed by a rebalance, by the node they left.
    rebalanced: counter "pushgate_rebalanced_flows_total" ["pool", "node"];
    /// Rate of the running rebalance of a pool, in clients per second; 0 if none runs.
    rebalance_rate: ratio "pushgate_rebalance_rate" ["pool"];
    /// Largest ratio of a node's flows to its share: 1 is even, 1.05 is 5 % more.
    evenness: ratio "pushgate_pool_evenness_ratio" ["pool"];
    /// DNS lookups of node names, by result: `good`, or why there was no answer.
    lookups: counter "pushgate_dns_lookups_total" ["source", "result"];
    /// Addresses in the last good DNS answer.
    dns_addresses: gauge "pushgate_dns_addresses" ["source"];
    /// Time of the last good DNS answer, in seconds since 1970.
    dns_answered: gauge "pushgate_dns_last_answer_timestamp_seconds" ["source"];
    /// Time it took to connect to a node.
    connect_seconds: seconds "pushgate_connect_seconds" ["node"];
    /// Connects to a node that failed, by reason.
    connect_failures: counter "pushgate_connect_failures_total" ["node", "reason"];
    /// Bytes passed: `up` to the nodes, `down` to the clients.
    bytes: counter "pushgate_bytes_total" ["listener", "direction"];
    /// Bytes of a relayed flow that the edge and its sockets held when it ended.
    hidden: bytes "pushgate_hidden_bytes" ["listener"];
    /// Time flows waited for their client, for their node, or for a busy thread of the edge; waits of 0.1 s and more.
    stalls: long_seconds "pushgate_stall_seconds" ["who"];
    /// How long no byte had passed on a connection when its peer, client or node, was found gone: by a reset, a timeout,
    /// or because it answered nothing.
    silence: long_seconds "pushgate_silence_before_loss_seconds" ["listener", "peer"];
    /// End of a certificate's validity, in seconds since 1970.
    not_after: gauge "pushgate_certificate_not_after_timestamp_seconds" ["certificate"];
    /// 1 for each warning about a certificate.
    certificate_warnings: gauge "pushgate_certificate_warning" ["certificate", "warning"];
    /// Time at which the next revocation list of a file is due, in seconds since 1970.
    crl_next: gauge "pushgate_crl_next_update_timestamp_seconds" ["file"];
    /// 1 if the last reload of certificates and ticket keys succeeded, else 0.
    certificates_ok: plain_gauge "pushgate_certificates_last_reload_successful" [];
    /// 1 for the state of the site's store: `ok`, `full` (takes nothing more), `slow` (no flow waits for it), `away`.
    store_state: gauge "pushgate_store_state" ["state"];
    /// Time at which the store's state began, in seconds since 1970.
    store_since: plain_gauge "pushgate_store_state_since_timestamp_seconds" [];
    /// Questions to the store, by result: `ok`, `late` (no answer in time), `away`, `full`, `failed`.
    store_questions: counter "pushgate_store_questions_total" ["result"];
    /// Claims of assignments, by result: `won` (this edge assigned the client), `told` (another had), `replaced` (another
    /// had, to a node that cannot be used), `contradicted` (the client has flows elsewhere; its next flow moves),
    /// `unknown`, `unusable`, `late` (the flow went on without), `away`, `full`, `failed`.
    store_claims: counter "pushgate_store_claims_total" ["result"];
    /// Orders of a certificate by ACME, by result: `ok` or `failed`.
    acme_orders: counter "pushgate_acme_orders_total" ["certificate", "result"];
    /// Orders of a certificate that failed since the last success.
    acme_failures: gauge "pushgate_acme_failures" ["certificate"];
    /// Time of the next order of a certificate, in seconds since 1970; now, if it is due.
    acme_next: gauge "pushgate_acme_next_order_timestamp_seconds" ["certificate"];
    /// Begin of the validity of the certificate in the state folder, in seconds since 1970; 0: there is none.
    acme_issued: gauge "pushgate_acme_issued_timestamp_seconds" ["certificate"];
    /// Requests to OCSP responders, by result.
    ocsp: counter "pushgate_ocsp_responses_total" ["certificate", "result"];
    /// Requests to the admin endpoint refused, by reason: `token`, `host`, `cross_site`, `body`; `connections`:
    /// connections beyond the limit.
    admin_refused: counter "pushgate_admin_refused_total" ["reason"];
    /// Log lines lost, by log (`access`, `service`) and reason: `queue_full` (disk or pipe too slow),
    /// `write_failed` (disk full, pipe closed), `limited` (too many like it).
    lost_lines: counter "pushgate_log_lines_lost_total" ["log", "reason"];
    /// Always 1. The labels name the program's version and commit, and the versions of OpenSSL and Pingora.
    build: gauge "pushgate_build_info" ["version", "git", "openssl", "pingora"];
    /// Reloads of the configuration, by result: `ok` or `failed`.
    reloads: counter "pushgate_config_reloads_total" ["result"];
    /// 1 if the last reload of the configuration succeeded, else 0.
    reload_ok: plain_gauge "pushgate_config_last_reload_successful" [];
    /// Keys of the configuration whose changes wait for a restart.
    restart_keys: plain_gauge "pushgate_config_restart_keys" [];
}

/// Names of the version before, and those that replace them. `/metrics` has both.
pub const OLD_NAMES: &[(&str, &str)] = &[
    (
        "pushgate_certificate_not_after_seconds",
        "pushgate_certificate_not_after_timestamp_seconds",
    ),
    (
        "pushgate_crl_next_update_seconds",
        "pushgate_crl_next_update_timestamp_seconds",
    ),
    (
        "pushgate_dns_last_answer_seconds",
        "pushgate_dns_last_answer_timestamp_seconds",
    ),
    ("pushgate_pool_evenness", "pushgate_pool_evenness_ratio"),
];

/// Returns the meaning of an old name.
pub fn deprecated(new: &str) -> String {
    format!("Deprecated, gone in the next version: use `{new}`.")
}

/// Returns the metrics of this process.
pub fn get() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::new)
}

impl Metrics {
    /// Forgets the series of a node that is gone, so that nodes that come and go do not fill memory.
    pub fn forget_node(&self, name: &str) {
        forget(&self.assigned, "node", name);
        forget(&self.stuck_refused, "node", name);
        forget(&self.node_flows, "node", name);
        forget(&self.node_site_flows, "node", name);
        forget(&self.node_state, "node", name);
        forget(&self.node_backup, "node", name);
        forget(&self.node_changes, "node", name);
        forget(&self.check_seconds, "node", name);
        forget(&self.checks, "node", name);
        forget(&self.old_checks, "node", name);
        forget(&self.agent_checks, "node", name);
        forget(&self.node_weight, "node", name);
        forget(&self.evicted, "node", name);
        forget(&self.rebalanced, "node", name);
        forget(&self.connect_seconds, "node", name);
        forget(&self.connect_failures, "node", name);
    }

    /// Forgets the series of a listener that has counted nothing: a refused configuration named it. One that a
    /// reload removed may still serve its last connections.
    pub fn forget_unused_listener(&self, name: &str) {
        let flows = self.flows.collect();
        let mut samples = flows.iter().flat_map(|family| family.get_metric());
        let of = |l: &prometheus::proto::LabelPair| l.name() == "listener" && l.value() == name;
        if samples.all(|s| s.get_counter().get_value() == 0.0 || !s.get_label().iter().any(of)) {
            forget(&self.flows, "listener", name);
            forget(&self.bytes, "listener", name);
        }
    }

    /// Forgets the series of a certificate that is no longer ordered.
    pub fn forget_acme(&self, certificate: &str) {
        forget(&self.acme_orders, "certificate", certificate);
        forget(&self.acme_failures, "certificate", certificate);
        forget(&self.acme_next, "certificate", certificate);
        forget(&self.acme_issued, "certificate", certificate);
    }

    /// Forgets the series of a name that is no longer looked up.
    pub fn forget_source(&self, source: &str) {
        forget(&self.lookups, "source", source);
        forget(&self.dns_addresses, "source", source);
        forget(&self.dns_answered, "source", source);
    }

    /// Returns all metrics as Prometheus text.
    pub fn text(&self) -> String {
        let (mut out, mut families) = (Vec::new(), self.registry.gather());
        families.extend(
            OLD_NAMES
                .iter()
                .filter_map(|(old, new)| {
                    let mut family = families.iter().find(|f| f.name() == *new)?.clone();
                    family.set_name((*old).to_owned());
                    family.set_help(deprecated(new));
                    Some(family)
                })
                .collect::<Vec<_>>(),
        );
        // Writing to memory cannot fail; a metric that cannot be encoded is left out.
        let _ = TextEncoder::new().encode(&families, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Removes the series whose label `of` is `value`.
fn forget<T: MetricVecBuilder>(from: &MetricVec<T>, of: &str, value: &str) {
    for family in from.collect() {
        for sample in family.get_metric() {
            let labels = sample.get_label();
            if labels.iter().any(|l| l.name() == of && l.value() == value) {
                let labels: HashMap<_, _> = labels.iter().map(|l| (l.name(), l.value())).collect();
                // An error means that the series is gone already.
                let _ = from.remove(&labels);
            }
        }
    }
}
