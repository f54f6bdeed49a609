//! Command `keys`: makes and rotates the keys of cookies and of session tickets, which several edges share.
//!
//! In: a file, and how long a rotation keeps the old key. Out: the file, written in one step, and a text that
//! says what to do next. A file has a key that signs, the next one, and old ones. All verify. Because every edge
//! has the next key before it signs, a rotation has no moment at which an edge does not know a key.
//! Source: RFC 5077 §4; FAULTS D34, D43.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use humantime::{format_duration, format_rfc3339_seconds};
use pushgate_plugins::sticky_cookie::keys_in;
use pushgate_plugins::units::duration;

use super::examples::KEYS;
use crate::clock;
use crate::credentials::ticket_keys;

mod key_file;
mod ring;

use ring::{Kind, Ring};

/// Key files.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    #[command(subcommand)]
    order: Order,
}

/// The action on a key file.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum Order {
    /// Make a file with a key that signs and the next one; its mode is 600.
    #[command(after_help = KEYS)]
    Make {
        /// What the keys are for.
        kind: Kind,
        /// The file, which must not exist yet.
        file: PathBuf,
    },
    /// Let the next key sign, keep the old one for verifying, and add another next key.
    #[command(after_help = KEYS)]
    Rotate {
        /// The file. Its owner, group and mode stay; comments of your own do not.
        file: PathBuf,
        /// How long the old key verifies: `max_age` of the cookies. By default 8h, or 2h for tickets.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        keep: Option<Duration>,
    },
    /// Show the keys of a file by a fingerprint, to compare edges.
    #[command(after_help = KEYS)]
    Show {
        /// The file.
        file: PathBuf,
    },
}

impl Keys {
    /// Does it, and returns the text to print.
    ///
    /// Errors: the file cannot be read or written, is no key file, or has as many keys as it may.
    pub fn run(self) -> Result<String, String> {
        match self.order {
            Order::Make { kind, file } => make(kind, &file),
            Order::Rotate { file, keep } => rotate(&file, keep),
            Order::Show { file } => Ok(read(&file)?.table()),
        }
    }
}

fn make(kind: Kind, file: &Path) -> Result<String, String> {
    let ring = Ring::new(kind, clock::wall()).map_err(|e| e.to_string())?;
    key_file::create(file, &ring.to_string())?;
    Ok(format!(
        "{}: made two keys: one signs, the next one waits for a rotation. Only your user can read the file; if \
         the edge runs as another, give it to its group: chgrp pushgate, chmod 640\n{}",
        file.display(),
        copy(kind)
    ))
}

fn rotate(file: &Path, keep: Option<Duration>) -> Result<String, String> {
    let mut ring = read(file)?;
    let keep = keep.unwrap_or(ring.kind().keep());
    let named = |why: String| format!("{}: {why}", file.display());
    let turn = ring.rotate(clock::wall(), keep).map_err(named)?;
    key_file::replace(file, &ring.to_string())?;
    let removed = match turn.removed {
        0 => String::new(),
        n => format!("; {n} older removed"),
    };
    let done = match turn.old_until {
        Some(until) => format!(
            "the next key signs now; the old one verifies until {} ({}){removed}",
            format_rfc3339_seconds(until),
            format_duration(keep)
        ),
        None => format!(
            "had no next key; added one that does not sign yet{removed}. Rotate again when every edge has it"
        ),
    };
    Ok(format!("{}: {done}\n{}", file.display(), copy(ring.kind())))
}

/// Says how a change reaches the edges.
fn copy(kind: Kind) -> String {
    let read = match kind {
        Kind::Cookie => "reload each: `pushgate reload`",
        Kind::Tickets => "each reads it within two seconds, without a reload",
    };
    format!("Copy the file to every edge before the next rotation; {read}\n")
}

/// Reads a file by the rules of the edge.
fn read(file: &Path) -> Result<Ring, String> {
    let named = |why: String| format!("{}: {why}", file.display());
    let text = key_file::read(file)?;
    let ring = Ring::parse(&text).map_err(named)?;
    match ring.kind() {
        Kind::Cookie => keys_in(&text).map(|_| ()).map_err(named)?,
        Kind::Tickets => ticket_keys::check_file(file).map_err(|e| e.to_string())?,
    }
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn order(order: Order) -> Result<String, String> {
        Keys { order }.run()
    }

    fn rotated(file: &Path) -> Result<String, String> {
        let (file, keep) = (file.to_owned(), None);
        order(Order::Rotate { file, keep })
    }

    fn first_key(text: &str) -> &str {
        text.lines()
            .find(|line| !line.starts_with('#'))
            .expect("a key")
    }

    /// Aim: the readers of the edge take what the command writes, after each of several rotations, and the key
    /// that signs next was in the file before. Fails if a rotation brings a key that no edge has, or loses the
    /// old one.
    #[test]
    fn a_rotation_brings_no_unknown_key() {
        let dir = tempfile::tempdir().expect("a folder");
        for (kind, name) in [(Kind::Cookie, "cookie"), (Kind::Tickets, "tickets")] {
            let file = dir.path().join(name);
            let told = order(Order::Make {
                kind,
                file: file.clone(),
            });
            assert!(told.expect("made").contains("Copy the file"));
            let mode = fs::metadata(&file).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            for turn in 1..=3 {
                let before = fs::read_to_string(&file).expect("text");
                fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("a mode");
                let told = rotated(&file).expect("rotated");
                assert!(told.contains("the next key signs now"), "{told}");
                let after = fs::read_to_string(&file).expect("text");
                let signs = first_key(&after);
                assert!(before.contains(signs) && first_key(&before) != signs);
                assert!(after.contains(first_key(&before)));
                assert_eq!(read(&file).expect("sound").kind(), kind, "turn {turn}");
                let mode = fs::metadata(&file).expect("a file").permissions().mode();
                assert_eq!(mode & 0o777, 0o640, "the mode stays");
            }
            assert_eq!(fs::read_dir(dir.path()).expect("entries").count(), 1);
            fs::remove_file(&file).expect("removed");
        }
    }

    /// Aim: what cannot be done is said with the file's name, and changes nothing. Fails if a key file is
    /// overwritten, or if an error shows a secret.
    #[test]
    fn refusals_name_the_file_and_change_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("keys");
        let full: String = (0..8).map(|i| format!("{i:064x}\n")).collect();
        for (text, why) in [
            ("", "no key"),
            ("not a key!\n", "line 1 is neither hexadecimal nor base64"),
            ("deadbeef\n", "shorter than 16 bytes"),
            (&full, "would have 9 keys, at most 8 are allowed"),
        ] {
            fs::write(&file, text).expect("a file");
            let told = rotated(&file).expect_err(why);
            assert!(told.contains(why), "{told}");
            assert!(told.contains(&file.display().to_string()), "{told}");
            assert!(
                text.is_empty() || !told.contains(first_key(text)),
                "{told} shows a secret"
            );
            assert_eq!(fs::read_to_string(&file).expect("text"), text);
        }
        let kind = Kind::Cookie;
        let told = order(Order::Make {
            kind,
            file: file.clone(),
        });
        assert!(told.expect_err("it exists").contains("exists already"));
        assert_eq!(fs::read_to_string(&file).expect("text"), full);
    }
}
