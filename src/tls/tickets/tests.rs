//! Tests rotation, hand-over and files of ticket keys.

use std::path::Path;

use super::*;
use crate::config::units::Span;
use crate::credentials::ticket_keys::{HALF, NAME};

fn config(dir: &Path, keep: usize, file: Option<&str>) -> Config {
    let mut config: Config = serde_yaml::from_str("listeners: []").unwrap();
    config.dir = dir.to_owned();
    config.tickets = Tickets {
        rotate: Span(Duration::from_secs(60)),
        keep,
        file: file.map(Into::into),
    };
    config
}

/// Aim: an old key opens tickets for `keep` rotations, marked as old, and is then dropped.
/// Source: FAULTS D34. Fails if a rotation drops the key that has just sealed.
#[test]
fn rotation_overlaps() {
    let ring = Ring::new(&config(Path::new(""), 2, None)).unwrap();
    let first = ring.seal().unwrap();
    let start = Instant::now();
    for (minutes, expected) in [
        (0, Some(true)),
        (1, Some(false)),
        (2, Some(false)),
        (3, None),
    ] {
        ring.rotate(start + Duration::from_secs(60 * minutes + 1));
        let found = ring.open(&first.name).map(|(_, seals)| seals);
        assert_eq!(found, expected, "after {minutes} rotations");
    }
}

/// Aim: a key goes when its last ticket is over, however many `keep` allows; also a key of a predecessor.
/// Fails if only `keep` limits the age of a key: the default kept keys for 36 h, and tickets live 2 h.
#[test]
fn keys_live_no_longer_than_their_tickets() {
    let mut config = config(Path::new(""), 2, None);
    config.tickets.rotate = Span(Duration::from_secs(12 * 3600));
    let ring = Ring::new(&config).unwrap();
    let first = ring.seal().unwrap();
    let rotated = Instant::now() + Duration::from_secs(12 * 3600);
    let known = |ring: &Ring, after: u64| {
        ring.rotate(rotated + Duration::from_secs(after));
        ring.open(&first.name).is_some()
    };
    assert!(known(&ring, 0) && known(&ring, 7199));
    assert!(!known(&ring, 7200));
    let ring = Ring::new(&config).unwrap();
    let first = ring.seal().unwrap();
    ring.rotate(Instant::now() + config.tickets.rotate.0);
    let mut bytes = ring.export();
    for (age, expected) in [(7100u64, true), (7200, false)] {
        bytes[..8].copy_from_slice(&age.to_be_bytes());
        let heir = Ring::import(&config, &bytes).unwrap();
        heir.rotate(Instant::now());
        assert_eq!(heir.open(&first.name).is_some(), expected, "{age} s");
    }
}

/// Aim: keys of a file that is no longer named neither seal nor open. Fails if `reload` keeps them.
#[test]
fn a_removed_file_takes_its_keys_along() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("keys"), "07".repeat(KEY_BYTES)).unwrap();
    let ring = Ring::new(&config(dir.path(), 2, Some("keys"))).unwrap();
    ring.reload(&config(dir.path(), 2, None)).unwrap();
    assert!(ring.open(&[7; NAME]).is_none());
    assert!(ring.seal().is_some_and(|key| key.aes != [7; HALF]));
    let sealing = ring.seal();
    ring.reload(&config(dir.path(), 2, None)).unwrap();
    assert!(
        ring.seal() == sealing,
        "a reload without a change keeps the key"
    );
}

/// Aim: a process that takes over opens its predecessor's tickets, and rotates keys when the
/// predecessor would have. It refuses a truncated ring. Fails if `export` leaves out a key or the age.
#[test]
fn a_ring_is_handed_over() {
    let config = config(Path::new(""), 2, None);
    let old = Ring::new(&config).unwrap();
    let first = old.seal().unwrap();
    old.rotate(Instant::now() + Duration::from_secs(61));
    let bytes = old.export();
    let new = Ring::import(&config, &bytes).unwrap();
    assert!(new.seal() == old.seal() && new.export()[8..] == bytes[8..]);
    assert!(new.open(&first.name).is_some_and(|(_, seals)| !seals));
    let mut aged = bytes.clone();
    aged[..8].copy_from_slice(&59u64.to_be_bytes());
    let aged = Ring::import(&config, &aged).unwrap();
    aged.rotate(Instant::now());
    assert!(aged.seal() == old.seal(), "59 s are no minute");
    aged.rotate(Instant::now() + Duration::from_secs(2));
    assert!(aged.seal() != old.seal());
    for cut in [0, 7, 8, 8 + KEY_BYTES - 1, bytes.len() - 1] {
        assert!(Ring::import(&config, &bytes[..cut]).is_err(), "{cut} bytes");
    }
}

/// Aim: keys of a file do not outlive it in a successor whose configuration no longer names it. Fails if
/// `export` gives the keys away.
#[test]
fn keys_of_a_file_are_not_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("keys"), "07".repeat(KEY_BYTES)).unwrap();
    let old = Ring::new(&config(dir.path(), 2, Some("keys"))).unwrap();
    let new = Ring::import(&config(dir.path(), 2, None), &old.export()).unwrap();
    assert!(new.open(&[7; NAME]).is_none());
    assert!(new.seal().is_some_and(|key| key.aes != [7; HALF]));
}

/// Aim: the first key of a file seals and all its keys open. The error of a bad file names the line,
/// and the keys do not change.
#[test]
fn files_are_rings() {
    let dir = tempfile::tempdir().unwrap();
    let hex = |byte: u8| format!("{byte:02x}").repeat(KEY_BYTES);
    let base64 = openssl::base64::encode_block(&[7; KEY_BYTES]);
    let write = |text: &str| std::fs::write(dir.path().join("keys"), text).unwrap();
    write(&format!("# ours\n{}\n\n{base64}\n", hex(1)));
    let config = config(dir.path(), 0, Some("keys"));
    let ring = Ring::new(&config).unwrap();
    assert_eq!(ring.seal().unwrap().aes, [1; HALF]);
    assert!(ring.open(&[7; NAME]).is_some_and(|(_, seals)| !seals));
    ring.rotate(Instant::now() + Duration::from_secs(3600));
    assert_eq!(
        ring.seal().unwrap().aes,
        [1; HALF],
        "keys of a file are not rotated"
    );
    for (text, expected) in [
        ("", "expected at least one ticket key"),
        ("abc", "line 1: expected a ticket key of 80 bytes"),
        (
            &format!("{0}\n{0}", hex(2)),
            "line 2: an earlier line has a key with the same first 16 bytes",
        ),
    ] {
        write(text);
        let fault = ring.reload(&config).unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
        assert_eq!(ring.seal().unwrap().aes, [1; HALF]);
    }
    write(&hex(9));
    ring.reload(&config).unwrap();
    assert_eq!(ring.seal().unwrap().aes, [9; HALF]);
}

/// Aim: a reload that names a file wins over a rotation of the same moment. Fails, within some 100 rounds,
/// if `reload` stores the keys of the file without the lock that `rotate` holds.
#[test]
fn a_rotation_does_not_undo_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let key = "09".repeat(KEY_BYTES);
    std::fs::write(dir.path().join("keys"), key).unwrap();
    let (random, file) = (
        config(dir.path(), 2, None),
        config(dir.path(), 2, Some("keys")),
    );
    for round in 0..500 {
        let ring = Ring::new(&random).unwrap();
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for minute in 1..20 {
                    ring.rotate(Instant::now() + Duration::from_secs(61 * minute));
                }
            });
            start.wait();
            ring.reload(&file).unwrap();
        });
        assert_eq!(ring.seal().unwrap().aes, [9; HALF], "round {round}");
    }
}
