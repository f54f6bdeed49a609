//! Follows one name.
//!
//! In: time, answers. Out: what is known of the name, sent to those that watch it. A log line reports each
//! change, not each lookup. Source: FAULTS D66.

use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::api::unix_seconds;
use tokio::sync::{Notify, watch};

use super::following::Seen;
use crate::clock;
use crate::observe::metrics;
use crate::upstream::discover::{Answer, DiscoverError, MAX_NODES, Resolver, Source};

/// Longest pause after a failed lookup, unless `min_ttl` is longer.
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// One name and its resolver.
pub(super) struct Follow {
    pub source: Source,
    pub resolver: Arc<Resolver>,
    pub seen: Arc<watch::Sender<Seen>>,
    pub changed: Arc<Notify>,
    pub min_ttl: Duration,
}

impl Follow {
    /// Looks the name up again and again, until the task is dropped.
    pub async fn run(self) {
        let mut failed = 0;
        loop {
            let asked = self.resolver.ask(&self.source).await;
            let wait = match &asked {
                Ok(answer) => {
                    failed = 0;
                    answer.ttl
                }
                Err(_) => {
                    failed += 1;
                    pause(self.min_ttl, failed)
                }
            };
            self.count(&asked);
            self.learn(asked);
            // Jitter, but never before the TTL ends: a cache would only answer with the rest of it.
            tokio::time::sleep(wait.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
        }
    }

    fn count(&self, asked: &Result<Answer, DiscoverError>) {
        let source = self.source.to_string();
        let result = asked
            .as_ref()
            .map_or_else(DiscoverError::as_str, |_| "good");
        let m = metrics::get();
        m.lookups
            .with_label_values(&[source.as_str(), result])
            .inc();
        if let Ok(answer) = asked {
            m.dns_addresses
                .with_label_values(&[&source])
                .set(answer.targets.len() as i64);
            m.dns_answered
                .with_label_values(&[&source])
                .set(unix_seconds(clock::wall()) as i64);
        }
    }

    fn learn(&self, asked: Result<Answer, DiscoverError>) {
        let mut differs = false;
        self.seen.send_modify(|seen| {
            seen.asked += 1;
            match asked {
                Ok(answer) => {
                    let before = seen.answer.as_ref().map(|a| &a.targets);
                    differs = before != Some(&answer.targets);
                    self.tell_answer(seen, &answer, differs);
                    seen.answered = Some(clock::wall());
                    seen.answer = Some(answer);
                    seen.failure = None;
                }
                Err(failure) => {
                    self.tell_failure(seen, &failure);
                    seen.failure = Some(failure);
                }
            }
        });
        if differs {
            self.changed.notify_one();
        }
    }

    fn tell_answer(&self, seen: &Seen, answer: &Answer, differs: bool) {
        let (source, count) = (&self.source, answer.targets.len());
        if differs {
            log::info!("{source}: new answer, {count} addresses");
        } else if seen.failure.is_some() {
            log::info!("{source}: answered again, {count} addresses as before");
        }
        let before = seen.answer.as_ref().map_or(0, |a| a.left_out);
        if answer.left_out > 0 && answer.left_out != before {
            log::warn!(
                "{source}: {} records are left out: not allowed (see `allow`), or beyond {MAX_NODES} addresses",
                answer.left_out
            );
        }
    }

    fn tell_failure(&self, seen: &Seen, failure: &DiscoverError) {
        if seen.failure.as_ref() == Some(failure) {
            return;
        }
        let source = &self.source;
        match &seen.answer {
            Some(a) => {
                let count = a.targets.len();
                log::warn!("{source}: {failure}; keeping the last good answer, {count} addresses");
            }
            None => log::warn!("{source}: {failure}; no nodes until a lookup succeeds"),
        }
    }
}

/// Returns the pause after `failed` failed lookups in a row.
fn pause(least: Duration, failed: u32) -> Duration {
    let doubled = least.saturating_mul(1 << (failed.saturating_sub(1)).min(16));
    doubled.min(MOST_PAUSE.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let s = Duration::from_secs;
        let pauses: Vec<_> = (1..=6).map(|failed| pause(s(1), failed)).collect();
        assert_eq!(pauses, [s(1), s(2), s(4), s(8), s(10), s(10)]);
        assert_eq!(pause(s(60), 1), s(60));
        assert_eq!(pause(s(60), u32::MAX), s(60));
    }
}
