//! Sends log lines to systemd's journal over its own socket, each as one entry with fields.
//!
//! In: entries, or plain text. Out: datagrams. A journal that is away is tried again with the next entry.
//! Source: systemd, "Native Journal Protocol"; systemd.journal-fields(7).

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::datagrams::Datagrams;

/// Level of text that is no entry: an error, because it comes from a panic or from a loss of lines.
const LEVEL: u8 = 3;
/// Longest wait for a journal that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest value of a field, in bytes; the rest is cut off. A datagram of this machine holds some 200 KiB.
const MAX_VALUE: usize = 48 * 1024;

/// An entry of the journal.
pub struct Entry(Vec<u8>);

impl Entry {
    /// Begins an entry with its level, as syslog has it (3: error, 6: information), and its text.
    pub fn new(level: u8, message: &str) -> Entry {
        let mut entry = Entry(Vec::with_capacity(1024));
        entry.add("PRIORITY", &level.to_string());
        entry.add("SYSLOG_IDENTIFIER", "pushgate");
        entry.add("MESSAGE", message);
        entry
    }

    /// Adds a field. Its name has capital letters, digits and `_`, and does not begin with `_`.
    pub fn add(&mut self, name: &str, value: &str) {
        let cut = (0..=MAX_VALUE.min(value.len())).rev();
        let value = cut.filter_map(|end| value.get(..end)).next();
        let value = value.unwrap_or_default();
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            let length = value.len() as u64;
            self.0.extend_from_slice(&length.to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }

    /// Returns the datagram.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The way to a journal.
pub struct Sender {
    path: PathBuf,
    datagrams: Datagrams<UnixDatagram>,
}

impl Sender {
    /// Makes the way to the journal with this socket. It may be away.
    pub fn new(path: PathBuf) -> Self {
        let datagrams = Datagrams::default();
        Sender { path, datagrams }
    }
}

impl Write for Sender {
    /// Sends an entry, tried twice. Text that is none becomes the text of one.
    ///
    /// Errors: those of the system.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let made;
        let entry = match line.starts_with(b"PRIORITY=") {
            true => line,
            false => {
                made = Entry::new(LEVEL, String::from_utf8_lossy(line).trim()).into_bytes();
                &made
            }
        };
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.connect(&self.path)?;
            Ok(socket)
        };
        self.datagrams.send(open, |socket| socket.send(entry))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: each entry is one datagram, a value of several lines keeps them, and a journal that was restarted gets the
    /// next entry. Fails if the old socket is kept, or if a line feed ends a value.
    #[test]
    fn each_entry_is_a_datagram() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("socket");
        let mut journal = UnixDatagram::bind(&path).expect("a socket");
        let mut sender = Sender::new(path.clone());
        let mut entry = Entry::new(4, "one\ntwo");
        entry.add("PUSHGATE_X", "a=b");
        let entry = entry.into_bytes();
        let expected = b"PRIORITY=4\nSYSLOG_IDENTIFIER=pushgate\nMESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\nPUSHGATE_X=a=b\n";
        let mut got = [0; 1024];
        for _ in 0..2 {
            assert_eq!(sender.write(&entry).expect("sent"), entry.len());
            let n = journal.recv(&mut got).expect("an entry");
            assert_eq!(&got[..n], expected);
            std::fs::remove_file(&path).expect("the socket's file");
            journal = UnixDatagram::bind(&path).expect("a socket");
        }
        assert_eq!(sender.write(b"\nthread panicked\n").expect("sent"), 17);
        let n = journal.recv(&mut got).expect("an entry");
        let text = b"PRIORITY=3\nSYSLOG_IDENTIFIER=pushgate\nMESSAGE=thread panicked\n";
        assert_eq!(&got[..n], text);
        drop(journal);
        std::fs::remove_file(&path).expect("the socket's file");
        assert!(sender.write(b"x").is_err());
    }

    /// Fails if a long value makes an entry that no datagram holds, or is cut within a character.
    #[test]
    fn a_long_value_is_cut() {
        let entry = Entry::new(6, &"ä".repeat(MAX_VALUE)).into_bytes();
        assert!(entry.len() < MAX_VALUE + 100, "{}", entry.len());
        assert!(String::from_utf8(entry).is_ok());
    }
}
