//! Tells the other edges once a second what this one has, and counts what they have.
//!
//! In: reports of the store. Out: counts and shares of the nodes, this edge's report, gauges, log lines where an edge
//! comes, goes or differs. Source: issue 16 §4, §6.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counts::{alone, apply, elsewhere, here};
use super::edge_report::{EVERY, EdgeReport, LIFETIME};
use super::site_state::warnings;
use super::store::Store;
use crate::control::Running;
use crate::observe::metrics;
use crate::upstream::Node;

/// How long after a connect the store may lack edges that live: it may have been restarted empty.
const REFILL: Duration = Duration::from_secs(3);

/// Exchanges counts until the process ends.
pub async fn watch(running: Arc<Running>) {
    let Some(store) = running.site.store.clone() else {
        return;
    };
    let mut known = BTreeMap::new();
    let mut connects = store.connects();
    let mut connected = Instant::now();
    loop {
        let begun = Instant::now();
        if connects.has_changed().unwrap_or(false) {
            connects.mark_unchanged();
            connected = begun;
        }
        running.exchange(&store, connected.elapsed() > REFILL).await;
        tell_changes(&running, &mut known);
        tokio::time::sleep(EVERY.saturating_sub(begun.elapsed())).await;
    }
}

impl Running {
    /// Reads what the other edges have, and tells them what this one has. `whole`: the store has been there for so long
    /// that every live edge has told it.
    async fn exchange(&self, store: &Store, whole: bool) {
        let read = store.reports().await;
        let now = Instant::now();
        if let Ok(reports) = read
            && self.site.is_told(now)
        {
            self.site.set_others(reports, whole, now);
        }
        self.count_site(&self.nodes(), now);
        let nodes = here(&self.nodes());
        let report = self
            .site
            .report(self.shown_addresses(), self.is_leaving(), nodes);
        // Where this fails, the others count this edge out when its last report expires.
        if store.report(&report).await.is_ok() {
            self.site.told(Instant::now());
        }
    }

    /// Gives `nodes` what the other edges have. An edge that has heard nobody for as long as a report lives goes on
    /// alone, with its part of the limits: the others may live.
    pub(in crate::control) fn count_site(&self, nodes: &[Arc<Node>], now: Instant) {
        let (others, ago) = self.site.others(now);
        match ago {
            Some(ago) if ago < LIFETIME => {
                apply(nodes, &elsewhere(others.iter()), self.site.edges(), now);
            }
            Some(_) => alone(nodes, self.site.edges(), now),
            // Nothing was ever heard.
            None => {}
        }
    }
}

/// Logs edges that came, went or differ, once for each change, and sets the gauges.
fn tell_changes(running: &Running, known: &mut BTreeMap<String, Vec<&'static str>>) {
    let site = &running.site;
    let own = site.report(Vec::new(), false, Default::default());
    let (others, ago) = site.others(Instant::now());
    // While the store is away, nobody is known to have come or gone.
    if ago.is_none_or(|ago| ago > EVERY * 2) {
        return;
    }
    let now: BTreeMap<String, (&EdgeReport, _)> = others
        .iter()
        .map(|other| (other.key(), (other, warnings(&own, other))))
        .collect();
    for (key, (other, differences)) in &now {
        let before = known.get(key);
        if before.is_none() {
            log::info!(
                "edge {} is part of the site, at {}",
                other.name,
                other.addresses.join(", ")
            );
        }
        if !differences.is_empty() && before != Some(differences) {
            log::warn!("edge {}: {}", other.name, differences.join("; "));
        }
    }
    for key in known.keys().filter(|key| !now.contains_key(*key)) {
        let name = key.split(':').next().unwrap_or_default();
        let seconds = LIFETIME.as_secs();
        log::warn!("edge {name} is gone: not heard for {seconds} s; its flows do not count");
    }
    let differing = now
        .values()
        .filter(|(_, differences)| !differences.is_empty());
    let m = metrics::get();
    m.site_edges.set(now.len() as i64 + 1);
    m.site_differing_edges.set(differing.count() as i64);
    *known = now.into_iter().map(|(key, (_, d))| (key, d)).collect();
}
