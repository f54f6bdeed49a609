//! Runs the lock-free parts of the edge in every order that threads may run in, with every value that an atomic may
//! return: `make loom`. A model that fails prints the order.
//!
//! No other part needs a model. Lists of flows and turns belong to one thread (`thread_local`). Ticket keys are
//! written under a lock and swapped whole by arc-swap. Counters have no order. A flag that saves taking a lock
//! (`held`, `gated`, `len`) may be late, because the state under the lock decides.

#![allow(dead_code, reason = "the models use a part of the files they include")]

#[path = "../../src/upstream/signal.rs"]
mod signal;
#[path = "../../src/upstream/stage.rs"]
mod stage;
mod sync;

use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

use signal::Signal;
use stage::Stage;

fn main() {
    for (name, model) in [
        (
            "a given signal ends the wait",
            a_given_signal_ends_the_wait as fn(),
        ),
        (
            "the task that asked last is woken",
            the_task_that_asked_last_is_woken,
        ),
        (
            "one of two events sees the other",
            one_of_two_events_sees_the_other,
        ),
        ("an evicted flow ends", an_evicted_flow_ends),
    ] {
        loom::model(model);
        println!("{name}: ok");
    }
}

/// Aim: no order loses the signal, and the waiting task sees what was written before `give`, as a flow sees why it
/// was closed. Fails if `give` stores with Relaxed, or if `poll` loads before it stores its waker.
fn a_given_signal_ends_the_wait() {
    let both = Arc::new((Signal::default(), AtomicUsize::new(0)));
    let given = both.clone();
    let giver = thread::spawn(move || {
        let (signal, why) = &*given;
        why.store(1, Relaxed);
        signal.give();
    });
    let (signal, why) = &*both;
    block_on(signal.wait());
    assert_eq!(why.load(Relaxed), 1);
    giver.join().unwrap();
}

#[derive(Default)]
struct Woken(Count);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Aim: a flow that moves to another task while it waits is woken there. Fails if `poll` stores only the first waker.
fn the_task_that_asked_last_is_woken() {
    let signal = Arc::new(Signal::default());
    let given = signal.clone();
    let giver = thread::spawn(move || given.give());
    let mut told = None;
    let tasks = [(); 2].map(|()| std::sync::Arc::new(Woken::default()));
    let asked = tasks.clone().map(|task| {
        let waker = Waker::from(task);
        signal.poll(&mut Context::from_waker(&waker), &mut told)
    });
    giver.join().unwrap();
    let [_, last] = asked;
    assert!(last.is_ready() || tasks[1].0.load(SeqCst) == 1);
}

/// Aim: of an eviction and the beginning of the answer exactly one sees the other. Fails if an event sets its flag
/// and reads the other's in two steps.
fn one_of_two_events_sees_the_other() {
    let stage = Arc::new(Stage::default());
    let evicted = stage.clone();
    let evicts = thread::spawn(move || evicted.evict());
    let after_eviction = stage.begin();
    assert_ne!(after_eviction, evicts.join().unwrap());
    assert!(stage.has_begun() && stage.is_evicted());
}

/// Aim: if the node is evicted while the answer begins, the flow ends. Repeats what `LiveFlow` does.
fn an_evicted_flow_ends() {
    let flow = Arc::new((Stage::default(), Signal::default()));
    let evicted = flow.clone();
    let evicts = thread::spawn(move || {
        let (stage, kill) = &*evicted;
        if stage.evict() {
            kill.give();
        }
    });
    let (stage, kill) = &*flow;
    if stage.begin() {
        kill.give();
    }
    block_on(kill.wait());
    evicts.join().unwrap();
}
