//! The memory that an exchange keeps while it waits.
//!
//! Source: docs/performance.md, "A silent connection".

use super::*;
use crate::proxy::http1::connection;
use crate::proxy::service::Service;
use crate::upstream::LiveFlow;

/// Returns the size in bytes of the future that `serve` returns, without calling it.
fn of_serve<F>(_: impl FnOnce(Side, Arc<Conn>, Arc<Service>) -> F) -> usize {
    size_of::<F>()
}

fn of_run<F>(_: impl FnOnce(Box<Answering<'static>>) -> F) -> usize {
    size_of::<F>()
}

fn of_exchange<F>(
    _: impl FnOnce(Client, &'static Arc<Conn>, RequestHead, &'static ProxyHooks, bool) -> F,
) -> usize {
    size_of::<F>()
}

/// Aim: a held poll keeps its task's memory from request to answer, and ten thousand polls keep it ten
/// thousand times. Each bound, in bytes, is some 5 % above what was measured. Fails if a rarely awaited
/// future is no longer boxed, or if a local lives across an `await` unnoticed.
#[test]
fn a_waiting_exchange_is_small() {
    let pieces = [
        ("serve", of_serve(connection::serve), 530),
        ("exchange", of_exchange(exchange), 1648),
        ("answering", size_of::<Answering<'_>>(), 394),
        ("run", of_run(Answering::run), 240),
        ("relay", size_of::<Relay>(), 436),
        ("record", size_of::<Exchange>(), 294),
        ("connection", size_of::<Conn>(), 218),
        ("flow", size_of::<LiveFlow>(), 143),
    ];
    let large = pieces.iter().filter(|(_, bytes, most)| bytes > most);
    let large: Vec<_> = large.collect();
    assert!(large.is_empty(), "piece, bytes, bound: {large:?}");
}
