//! Writes the configuration that is in force: the file with every default put in, for `check -T`.
//!
//! In: a checked [`Config`]. Out: YAML that decodes to the same configuration. A header that may carry a
//! secret is written as `***`. Paths stay as the file has them, so relative ones need the file's folder.

use std::thread::available_parallelism;

use serde::ser::{Serialize, Serializer};
use serde_yaml::Value;
use serde_yaml::with::singleton_map_recursive;

use super::units::Span;
use super::{
    Address, Config, Health, HostPort, Listener, ListenerTls, MemoryLimit, NoNode, OnLost, Profile,
    Version,
};

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// Headers with one of these words in their names may carry a secret.
const SECRET_WORDS: [&str; 8] = [
    "authorization",
    "cookie",
    "credential",
    "key",
    "passw",
    "secret",
    "session",
    "token",
];

/// Part of `interval` that `fast_interval` is where it is not given.
const FAST: u32 = 4;

impl Config {
    /// Returns the configuration as a file with every default.
    ///
    /// Errors: a path that is not UTF-8.
    pub fn effective(&self) -> Result<String, String> {
        let mut whole = self.clone();
        whole.fill();
        let mut tree = singleton_map_recursive::serialize(&whole, serde_yaml::value::Serializer)
            .map_err(|e| e.to_string())?;
        prune(&mut tree);
        hide(&mut tree, false);
        serde_yaml::to_string(&tree).map_err(|e| e.to_string())
    }

    /// Puts in the defaults that depend on other keys or on the machine.
    fn fill(&mut self) {
        self.threads = self.threads.or(available_parallelism().ok());
        let of_nodes = self.nodes.values_mut().filter_map(|n| n.health.as_mut());
        let of_pools = self.pools.values_mut().filter_map(|p| p.health.as_mut());
        of_nodes.chain(of_pools).for_each(Health::fill);
        self.listeners.iter_mut().for_each(Listener::fill);
    }
}

impl Health {
    fn fill(&mut self) {
        let fast = Span(self.interval.0 / FAST);
        self.fast_interval.get_or_insert(fast);
    }
}

impl Listener {
    fn fill(&mut self) {
        self.plugins.iter_mut().for_each(|plugin| plugin.fill());
        if let Some(tls) = &mut self.tls {
            tls.fill();
        }
    }
}

impl ListenerTls {
    fn fill(&mut self) {
        let lowest = match self.profile {
            Profile::Modern => Version::Tls13,
            Profile::Intermediate => Version::Tls12,
        };
        self.min_version.get_or_insert(lowest);
        self.max_version.get_or_insert(Version::Tls13);
    }
}

/// Removes keys without a value, and those that mean something only beside one.
fn prune(value: &mut Value) {
    match value {
        Value::Mapping(map) => {
            map.retain(|_, value| !value.is_null());
            // `check` refuses it where no client certificate is asked for.
            if map.contains_key("certificates") && !map.contains_key("client_ca") {
                map.remove("client_certificate");
            }
            map.values_mut().for_each(prune);
        }
        Value::Sequence(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Hides values of headers by their names. `set` and `add` of the plugin `headers` are the only blocks of
/// values that the edge sends on; all other secrets are in files.
fn hide(value: &mut Value, headers: bool) {
    let Value::Mapping(map) = value else {
        if let Value::Sequence(items) = value {
            items.iter_mut().for_each(|item| hide(item, false));
        }
        return;
    };
    for (key, value) in map.iter_mut() {
        let key = key.as_str().unwrap_or_default();
        if value.is_string() && headers && is_secret(key) {
            *value = HIDDEN.into();
        } else {
            hide(value, matches!(key, "set" | "add"));
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

macro_rules! as_text {
    ($($type:ty: $text:expr,)+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let text: fn(&$type) -> String = $text;
                s.serialize_str(&text(self))
            }
        }
    )+};
}

as_text! {
    Address: |address| address.to_string(),
    HostPort: |host| host.to_string(),
    Version: |version| match version {
        Version::Tls12 => "1.2".to_owned(),
        Version::Tls13 => "1.3".to_owned(),
    },
    NoNode: |answer| match answer {
        NoNode::Unavailable => "503".to_owned(),
        NoNode::Close => "close".to_owned(),
    },
    OnLost: |answer| match answer {
        OnLost::Close => "close".to_owned(),
        OnLost::BadGateway => "502".to_owned(),
    },
    MemoryLimit: |limit| match limit {
        MemoryLimit::Share(share) => share.written(),
        MemoryLimit::Bytes(bytes) => bytes.written(),
    },
}
