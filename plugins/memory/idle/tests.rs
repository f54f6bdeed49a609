//! Compares the lists with a plain model, and counts what they hold.

use super::*;
use crate::testing::Rng;

/// Keys with their source, oldest first.
type Model = Vec<(u64, u64)>;

/// Returns the place of the entry that must make room.
fn victim(model: &Model) -> Option<usize> {
    let count = |source| {
        model
            .iter()
            .filter(|(_, s)| *s == source && source != 0)
            .count()
    };
    let most = model.iter().map(|(_, s)| count(*s)).max()?;
    let of = |source| most < 2 || count(source) == most;
    model.iter().position(|(_, s)| of(*s))
}

/// Aim: entries leave in the order they became idle, and evictions take from a source with the most. Fails if
/// a list, the index or a count breaks in any order of steps.
#[test]
fn lists_agree_with_a_plain_model() {
    for seed in 0..300 {
        let (mut rng, mut model) = (Rng(seed), Model::new());
        let mut idle: Idle<u64, u64> = Idle::default();
        for step in 0..400 {
            let (key, source) = (rng.next() % 40, rng.next() % 5);
            match rng.next() % 8 {
                0..4 => {
                    idle.insert(key, Source(source), step);
                    model.retain(|(k, _)| *k != key);
                    model.push((key, source));
                }
                4 => {
                    let known = model.iter().any(|(k, _)| *k == key);
                    assert_eq!(idle.remove(&key).is_some(), known, "{seed} {step}");
                    model.retain(|(k, _)| *k != key);
                }
                5 => {
                    let oldest = (!model.is_empty()).then(|| model.remove(0).0);
                    assert_eq!(idle.pop_oldest().map(|(k, _)| k), oldest);
                }
                _ => {
                    let gone = idle.evict().map(|(k, _)| k);
                    let at = model.iter().position(|(k, _)| Some(*k) == gone);
                    let want = victim(&model);
                    let got = at.map(|at| model[at].1);
                    assert_eq!(got.is_some(), want.is_some(), "{seed} {step}");
                    if let Some(at) = at {
                        // Of equal sources any may lose, but always its oldest entry.
                        let count = |s| model.iter().filter(|(_, o)| *o == s).count();
                        let most = (1..5).map(count).max().unwrap_or_default();
                        match most > 1 {
                            true => assert!(model[at].1 != 0 && count(model[at].1) == most),
                            false => assert_eq!(at, 0),
                        }
                        let first = model.iter().position(|(_, s)| *s == model[at].1);
                        assert!(
                            most < 2 || first == Some(at),
                            "{seed} {step}: not its oldest"
                        );
                        model.remove(at);
                    }
                }
            }
            let keys: Vec<u64> = idle.iter().map(|(k, _)| *k).collect();
            let want: Vec<u64> = model.iter().map(|(k, _)| *k).collect();
            assert_eq!((keys, idle.len()), (want, model.len()), "{seed} {step}");
        }
    }
}

/// Aim: places are used again. Fails if a table that is always full grows.
#[test]
fn a_full_table_takes_no_more_memory() {
    let mut idle: Idle<u64, u64> = Idle::default();
    for key in 0..100_000 {
        if idle.len() == 1_000 {
            idle.evict();
        }
        idle.insert(key, Source(1 + key % 900), key);
    }
    assert_eq!((idle.slots.len(), idle.len()), (1_000, 1_000));
    assert!(idle.sources.size() <= 1_004, "{}", idle.sources.size());
}
