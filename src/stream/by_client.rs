//! Keeps one value for each client address, for as long as somebody holds it.
//!
//! In: addresses. Out: the value of each, made when it is first asked for. `T`'s `Drop` must
//! call [`ByClient::forget`]; otherwise its entry stays.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The values that somebody holds.
pub struct ByClient<T>(Mutex<HashMap<IpAddr, Weak<T>>>);

impl<T> Default for ByClient<T> {
    fn default() -> Self {
        ByClient(Mutex::default())
    }
}

impl<T> ByClient<T> {
    /// Returns the value of `client`, made by `make` if nobody holds it.
    pub fn of(&self, client: IpAddr, make: impl FnOnce() -> T) -> Arc<T> {
        let mut held = self.0.lock();
        let entry = held.entry(client).or_default();
        if let Some(value) = entry.upgrade() {
            return value;
        }
        let value = Arc::new(make());
        *entry = Arc::downgrade(&value);
        value
    }

    /// Forgets the value of `client`, which is being dropped. A new one that stands there already stays.
    pub fn forget(&self, client: IpAddr) {
        let mut held = self.0.lock();
        if held.get(&client).is_some_and(|v| v.strong_count() == 0) {
            held.remove(&client);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Counts one more, unless there are `most`. Returns whether it did. While another call is refused, this one may be
/// refused too although a place has just become free.
pub fn take(held: &AtomicUsize, most: usize) -> bool {
    let taken = held.fetch_add(1, Ordering::Relaxed) < most;
    if !taken {
        held.fetch_sub(1, Ordering::Relaxed);
    }
    taken
}
