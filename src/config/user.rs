//! Looks up the user that `user` names.
//!
//! In: a name. Out: its numbers, from the system's users.

use std::ffi::CString;
use std::mem::MaybeUninit;

/// The numbers of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
}

/// Room for the texts of one user.
const ROOM: usize = 16 * 1024;

impl User {
    /// Returns the user called `name`; `None`: this machine has none.
    pub fn named(name: &str) -> Option<User> {
        let name = CString::new(name).ok()?;
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut texts = vec![0; ROOM];
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are to live memory of the lengths given; the call keeps none.
        let rc = unsafe {
            libc::getpwnam_r(
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
        let entry = unsafe { entry.assume_init() };
        Some(User {
            uid: entry.pw_uid,
            gid: entry.pw_gid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(User::named("root"), Some(User { uid: 0, gid: 0 }));
        for name in ["", "no such user", "a\0b"] {
            assert_eq!(User::named(name), None, "{name:?}");
        }
    }
}
