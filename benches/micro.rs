//! Measures the time of each decision with criterion: `make bench-micro`.
//!
//! In: the cases. Out: criterion's times. `budget` counts the instructions of the same cases.

#![allow(missing_docs, reason = "criterion_group! makes a pub fn")]

mod cases;

use criterion::{Criterion, criterion_group, criterion_main};

fn micro(c: &mut Criterion) {
    for mut case in cases::cases() {
        c.bench_function(&case.name, |b| b.iter(&mut case.once));
    }
}

criterion_group!(benches, micro);
criterion_main!(benches);
