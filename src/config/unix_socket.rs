//! The block `unix` of a listener and of the admin endpoint: who may connect to their Unix sockets.
//!
//! In: the keys. Out: [`UnixSocket`], whose user and group are looked up when a socket is bound.

use std::ffi::CString;
use std::fmt;
use std::mem::MaybeUninit;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::echo;
use super::{User, defaults};

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct UnixSocket {
    /// Rights of its file.
    #[serde(default)]
    pub mode: FileMode,
    /// Its owner; absent: the user of the process.
    #[serde(default)]
    pub user: Option<String>,
    /// Its group; absent: that of the process.
    #[serde(default)]
    pub group: Option<String>,
}

/// Rights of a file, as chmod(1) takes them: `0660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Default for FileMode {
    fn default() -> Self {
        FileMode(defaults::UNIX_MODE)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = FileMode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("octal rights from `0000` to `0777`, such as `0660`")
            }
            // YAML reads `0660` as text. A number would be decimal to some readers and octal to others.
            fn visit_str<E: Error>(self, text: &str) -> Result<FileMode, E> {
                let octal = text.len() == 4 && text.starts_with('0');
                let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
                let wrong = || E::invalid_value(Unexpected::Str(text), &self);
                mode.map(FileMode).ok_or_else(wrong)
            }
        }
        d.deserialize_any(V)
    }
}

/// Room for the texts of one group.
const ROOM: usize = 64 * 1024;

/// Returns the number of the group called `name`; `None`: this machine has none.
pub fn group_named(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut texts = vec![0; ROOM];
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to live memory of the lengths given; the call keeps none.
    let rc = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            texts.as_mut_ptr(),
            texts.len(),
            &mut found,
        )
    };
    if rc != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call has set the pointer, so it has filled the entry.
    Some(unsafe { entry.assume_init() }.gr_gid)
}

impl UnixSocket {
    /// Returns the number of its user. Errors: this machine has no such user.
    pub fn uid(&self) -> Result<Option<u32>, String> {
        let user = self.user.as_ref().map(|name| {
            let user = User::named(name).map(|user| user.uid);
            user.ok_or_else(|| format!("this machine has no user `{}`", echo(name)))
        });
        user.transpose()
    }

    /// Returns the number of its group. Errors: this machine has no such group.
    pub fn gid(&self) -> Result<Option<u32>, String> {
        let group = self.group.as_ref().map(|name| {
            let group = group_named(name);
            group.ok_or_else(|| format!("this machine has no group `{}`", echo(name)))
        });
        group.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_octal_and_groups_are_found_by_name() {
        for (text, expected) in [
            ("0660", Some(0o660)),
            ("'0777'", Some(0o777)),
            ("0000", Some(0)),
            ("660", None),
            ("0o660", None),
            ("0888", None),
            ("01777", None),
            ("rw", None),
            ("~", None),
        ] {
            let read = serde_yaml::from_str::<FileMode>(text).ok();
            assert_eq!(read.map(|mode| mode.0), expected, "{text}");
        }
        assert_eq!(group_named("root"), Some(0));
        assert_eq!(group_named("no such group"), None);
    }
}
