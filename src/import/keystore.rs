//! Opens the keystores of push servers, with the passwords beside them, to learn which names they cover.
//!
//! In: what a `<keystore>` element says. Out: its path, the names that its certificate covers.
//! Source: Lightstreamer clustering §3 (`<keystore_file>`, `<keystore_password>`).

use std::fmt;
use std::path::{Path, PathBuf};

use crate::credentials::{TlsError, names_in, password_in};

/// A `<keystore>` element. Paths are as written there: relative to the server's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    /// The keystore's file.
    pub file: String,
    /// The keystore's password.
    pub password: Password,
}

/// The password of a keystore.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Written in the element; empty if the element has none.
    Text(String),
    /// In a file of its own (`type="file"`).
    File(String),
}

/// Hides the password.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::Text(_) => f.write_str("Text(***)"),
            Password::File(file) => write!(f, "File({file})"),
        }
    }
}

impl Keystore {
    /// Returns the keystore's path, given the file that names it.
    pub fn path(&self, named_by: &Path) -> PathBuf {
        beside(named_by, &self.file)
    }

    /// Returns the names that its certificate covers.
    ///
    /// Errors: the keystore cannot be read or opened, or must be converted first.
    pub fn names(&self, named_by: &Path) -> Result<Vec<String>, TlsError> {
        let password = match &self.password {
            Password::Text(text) => text.clone(),
            Password::File(file) => password_in(&beside(named_by, file))?,
        };
        names_in(&self.path(named_by), &password)
    }
}

/// Resolves a path of a server's file: relative to that file, as the server reads it.
pub(super) fn beside(named_by: &Path, file: &str) -> PathBuf {
    let path = named_by.parent().unwrap_or(Path::new("")).join(file);
    // The written configuration may be used from another folder.
    std::path::absolute(&path).unwrap_or(path)
}
