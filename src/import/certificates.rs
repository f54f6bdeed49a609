//! Makes the edge's own certificate entry from the servers' keystores, for an edge that ends TLS.
//!
//! In: the sockets for CR of all servers. Out: an entry of `certificates:`, notes on what the user must still
//! do, and the password in a file of its own. A keystore that all servers share is the multi-domain
//! certificate, which also fits the edge. Keystores that differ do not.
//! Source: Lightstreamer clustering §3.2.1.4, §3.2.2.4.

use std::path::Path;

use super::keystore::{Keystore, Password, beside};
use super::push_server::PushServer;
use crate::credentials::TlsError;

/// Most characters of a certificate's name: YAML allows a key no more than 1,024.
const MAX_NAME: usize = 64;
/// Words that YAML 1.1 or 1.2 reads as a truth value or as null.
const VALUES: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// A password for a file of its own, beside the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The file's name.
    pub file: String,
    /// Its first line.
    pub password: String,
}

/// Hides the password.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}, ***)", self.file)
    }
}

/// An entry of `certificates:`.
pub(super) struct Entry {
    /// The certificate's name.
    pub(super) name: String,
    /// The YAML line.
    pub(super) line: String,
    /// Notes for the user, one line each.
    pub(super) notes: Vec<String>,
    /// The password's file, if the edge needs one that does not exist yet.
    pub(super) secret: Option<Secret>,
}

/// Returns the edge's certificate; a guess if `servers` share no keystore.
pub(super) fn entry(servers: &[PushServer]) -> Entry {
    let keystore = |server: &PushServer| server.sockets.iter().find_map(|s| s.keystore.clone());
    let Some(first) = servers.first() else {
        return guess();
    };
    match keystore(first) {
        Some(shared) if all_have(servers, &shared) => from(&shared, &first.path),
        _ => guess(),
    }
}

fn all_have(servers: &[PushServer], keystore: &Keystore) -> bool {
    servers.iter().all(|server| {
        let mut own = server.sockets.iter().filter_map(|s| s.keystore.as_ref());
        own.any(|k| k.file == keystore.file)
    })
}

fn guess() -> Entry {
    Entry {
        name: "push".to_owned(),
        line: "  push: { chain: push.pem, key: push.key }   # covers the name clients start with\n"
            .to_owned(),
        notes: Vec::new(),
        secret: None,
    }
}

fn from(keystore: &Keystore, named_by: &Path) -> Entry {
    let path = keystore.path(named_by);
    let name = name_of(&keystore.file);
    let mut shown = path.display().to_string();
    let (mut notes, mut covers) = (Vec::new(), String::new());
    match keystore.names(named_by) {
        Ok(names) => covers = format!("   # covers {}", names.join(", ")),
        Err(fault @ (TlsError::JavaKeystore { .. } | TlsError::OldCipher { .. })) => {
            notes.push(fault.to_string());
            let new = if matches!(fault, TlsError::OldCipher { .. }) {
                "new"
            } else {
                "p12"
            };
            shown = format!("{shown}.{new}");
        }
        Err(fault) => notes.push(fault.to_string()),
    }
    let (file, secret) = match &keystore.password {
        Password::File(file) => (beside(named_by, file).display().to_string(), None),
        Password::Text(password) => {
            let file = format!("{name}.pass");
            notes.push(format!(
                "{file}: its first line must be the <keystore_password>, which is not printed here \
                 (`--out FOLDER` writes both files)"
            ));
            let password = password.clone();
            (file.clone(), Some(Secret { file, password }))
        }
    };
    let (shown, file) = (quoted(&shown), quoted(&file));
    Entry {
        line: format!("  {name}: {{ keystore: {shown}, password_file: {file} }}{covers}\n"),
        name,
        notes,
        secret,
    }
}

/// Names the certificate after the stem of its keystore's `file`. The name is `push` if YAML would read the stem as
/// a number or a truth value.
fn name_of(file: &str) -> String {
    let stem = Path::new(file).file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy();
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = stem.chars().take(MAX_NAME).map(word).collect();
    let is_value = |known: &&str| name.eq_ignore_ascii_case(known);
    match name.starts_with(|c: char| c.is_ascii_alphabetic()) && !VALUES.iter().any(is_value) {
        true => name,
        false => "push".to_owned(),
    }
}

/// Quotes a path so that YAML reads it back.
fn quoted(text: &str) -> String {
    crate::init::quoted(Path::new(text))
}
