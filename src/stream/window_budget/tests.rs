//! The window budget as a table of cases, and against a model of two kernels.

use super::*;

const SMALL: usize = 16 << 10;
const ROOM: usize = 64 << 10;

/// A client's kernel with a window of `window` bytes, and `unacknowledged` bytes in ours.
fn client(window: u64, unacknowledged: u64) -> Facts {
    Facts {
        acknowledged: 1 << 20,
        window,
        unacknowledged,
        unread: 1 << 20,
        ..Facts::default()
    }
}

/// Fails if the node is promised more than the client's kernel has room for, or less than it could be.
#[test]
fn levels_by_the_clients_window() {
    let kib = |n: u64| n << 10;
    let cases = [
        (SMALL, client(0, 0), SMALL, "a shut window"),
        (
            SMALL,
            client(kib(64), kib(64)),
            SMALL,
            "a window that is full",
        ),
        (
            SMALL,
            client(kib(79), 0),
            SMALL,
            "no room for twice the buffer",
        ),
        (
            SMALL,
            client(kib(80), 0),
            2 * SMALL,
            "room for twice the buffer",
        ),
        (
            SMALL,
            client(kib(4096), 0),
            2 * SMALL,
            "it grows by doubling",
        ),
        (16 * SMALL, client(kib(4096), 0), 16 * SMALL, "the cap"),
        (
            8 * SMALL,
            Facts {
                unsent: kib(300),
                ..client(kib(4096), kib(300))
            },
            8 * SMALL,
            "what is not sent counts",
        ),
        (
            SMALL,
            Facts {
                framed: true,
                ..client(kib(80), 0)
            },
            SMALL,
            "TLS takes its share",
        ),
    ];
    for (level, facts, expected, name) in cases {
        let mut budget = WindowBudget::new(level, SMALL);
        budget.before_read(facts, ROOM);
        assert_eq!(budget.level, expected, "{name}");
    }
}

/// Fails if the buffer drops below what the node was promised and has not sent: our kernel would drop those
/// bytes.
#[test]
fn reads_lower_the_buffer() {
    let mut budget = WindowBudget::new(8 * SMALL, SMALL);
    let shut = |unread| Facts {
        unread,
        ..client(0, 0)
    };
    let nothing = budget.before_read(shut(0), ROOM);
    assert_eq!(
        nothing,
        Verdict {
            buffer: None,
            read: ROOM
        }
    );
    let mut left = 8 * SMALL;
    for unread in [5000, 100, ROOM, ROOM] {
        let n = unread.min(ROOM);
        left = left.saturating_sub(n).max(SMALL);
        let verdict = budget.before_read(shut(unread), ROOM);
        assert_eq!(
            verdict,
            Verdict {
                buffer: Some(left),
                read: n
            },
            "{unread}"
        );
        budget.saw(n);
    }
    assert_eq!(left, SMALL);
    assert!(!budget.is_kept(), "the client may read on");
}

/// Fails if messages keep a large buffer, or if a connection keeps the one that an earlier answer left.
#[test]
fn messages_end_bulk() {
    let mut budget = WindowBudget::new(2 * SMALL, SMALL);
    for n in [100, 100, 100, ROOM, 100, 100, 100] {
        budget.saw(n);
        assert!(budget.asks_client());
    }
    budget.saw(100);
    for mut budget in [budget, WindowBudget::left_over(2 * SMALL, SMALL)] {
        assert!(!budget.asks_client());
        let mut messages = 0;
        while !budget.is_kept() {
            let facts = Facts {
                unread: 100,
                ..Facts::default()
            };
            budget.before_read(facts, ROOM);
            budget.saw(100);
            messages += 1;
        }
        assert!((150..=170).contains(&messages), "{messages}");
    }
}

/// Models a client that reads at random and then stops, both kernels, and a node that sends what it may.
/// Returns the most that the node was promised beyond the client's window, and how much our kernel dropped.
fn run(seed: u64, framed: u64) -> (u64, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut budget = WindowBudget::new(SMALL, SMALL);
    let (mut sent, mut read, mut edge, mut wire) = (0u64, 0u64, SMALL as u64, 0u64);
    let (mut taken_by_client, mut buffer) = (0u64, random.u64(1 << 14..1 << 21));
    let (mut beyond, mut dropped) = (0, 0);
    for step in 0..400 {
        sent += random.u64(0..=edge - sent);
        let stopped = step > 300;
        if !stopped {
            taken_by_client += random.u64(0..=wire - taken_by_client);
            buffer = buffer.max(random.u64(1 << 14..1 << 21));
        }
        dropped = dropped.max((sent - read).saturating_sub(budget.level as u64));
        let promised = taken_by_client + buffer;
        let facts = Facts {
            acknowledged: wire.min(promised),
            window: promised.saturating_sub(wire),
            unacknowledged: wire.saturating_sub(promised),
            unsent: wire.saturating_sub(promised),
            unread: usize::try_from(sent - read).unwrap(),
            framed: framed > 0,
        };
        // As a direction does: it reads only once the client's kernel has sent half.
        if facts.unsent as usize >= budget.most() / 2 {
            continue;
        }
        let room = (budget.most() - facts.unsent as usize).min(ROOM);
        let verdict = budget.before_read(facts, room);
        let n = verdict.read.min(facts.unread);
        read += n as u64;
        budget.saw(n);
        wire += n as u64 + n as u64 * framed / 1000;
        edge = edge.max(read + budget.level as u64);
        let payload = promised * 1000 / (1000 + framed);
        beyond = beyond.max(edge.saturating_sub(payload));
    }
    (beyond, dropped)
}

/// Aim: whatever client and node do, the node is promised no more than the client's window, the small window
/// and the small share of unsent bytes. Fails if more is promised, or if our kernel drops a promised byte.
#[test]
fn no_more_is_promised_than_the_client_promised() {
    for seed in 0..500 {
        for framed in [0, 10] {
            let (beyond, dropped) = run(seed, framed);
            // The framing of these bytes comes on top.
            let most = (SMALL + SMALL / 2) as u64 * (1000 + framed) / 1000;
            assert!(beyond <= most, "seed {seed}: {beyond} bytes beyond");
            assert_eq!(dropped, 0, "seed {seed}");
        }
    }
}
