//! Writes the configuration that is in force: the file with every default put in, for `check -T`.
//!
//! In: a checked [`Config`]. Out: YAML that decodes to the same configuration, unless something is hidden: `***`
//! stands for the value of a header towards nodes, of a cookie, and of the query of a health check. Paths stay as the file has them, so relative ones need the file's folder.

use std::thread::available_parallelism;
use std::time::Duration;

use pushgate_plugins::PluginConfig;
use serde::ser::{Serialize, Serializer};
use serde_yaml::Value;
use serde_yaml::with::singleton_map_recursive;

use super::read::MAX_FILE;
use super::tls::default_groups;
use super::units::{MaybeRate, Span};
use super::{
    Address, AgentAddress, Config, FileMode, Health, HostPort, Listener, ListenerTls, MemoryLimit,
    NoNode, OnLost, Profile, SourceAddress, Statuses, Version, defaults, tree,
};

/// Part of `interval` that `fast_interval` is where it is not given.
const FAST: u32 = 4;

impl Config {
    /// Returns the configuration as a file with every default.
    ///
    /// Errors: a path that is not UTF-8.
    pub fn effective(&self) -> Result<String, String> {
        let mut whole = self.clone();
        whole.fill();
        whole.hide();
        let mut tree = singleton_map_recursive::serialize(&whole, serde_yaml::value::Serializer)
            .map_err(|e| e.to_string())?;
        prune(&mut tree);
        prune_tls(&mut tree);
        tree.as_mapping_mut().and_then(|map| map.remove("include"));
        name_variables(&mut tree, &self.environment);
        serde_yaml::to_string(&tree).map_err(|e| e.to_string())
    }

    /// Hides what may be a secret. All other secrets are in files of their own.
    fn hide(&mut self) {
        for plugin in self.listeners.iter_mut().flat_map(|l| &mut l.plugins) {
            if let PluginConfig::Headers(headers) = plugin {
                headers.hide();
            }
        }
        let of_nodes = self.nodes.values_mut().filter_map(|n| n.health.as_mut());
        let of_pools = self.pools.values_mut().filter_map(|p| p.health.as_mut());
        for http in of_nodes.chain(of_pools).filter_map(|h| h.http.as_mut()) {
            if let Some((path, _)) = http.path.split_once('?') {
                http.path = format!("{path}?***");
            }
        }
    }

    /// Puts in the defaults that depend on other keys or on the machine.
    pub(super) fn fill(&mut self) {
        // All files are in it.
        self.include.clear();
        self.threads = self.threads.or(available_parallelism().ok());
        let of_nodes = self.nodes.values_mut().filter_map(|n| n.health.as_mut());
        let of_pools = self.pools.values_mut().filter_map(|p| p.health.as_mut());
        of_nodes.chain(of_pools).for_each(Health::fill);
        self.listeners.iter_mut().for_each(Listener::fill);
        let mut certificates = std::mem::take(&mut self.certificates);
        for acme in certificates.values_mut().filter_map(|c| c.acme.as_mut()) {
            acme.challenge = self.challenge_of(acme);
        }
        self.certificates = certificates;
    }
}

impl Health {
    fn fill(&mut self) {
        let fast = Span((self.interval.0 / FAST).max(Duration::from_nanos(1)));
        self.fast_interval.get_or_insert(fast);
    }
}

impl Listener {
    fn fill(&mut self) {
        self.plugins.iter_mut().for_each(|plugin| plugin.fill());
        self.connection_rate_per_client = Some(MaybeRate(self.connection_rate()));
        self.request_rate_per_client = Some(MaybeRate(self.request_rate()));
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
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.ciphers.get_or_insert_with(|| all(&defaults::CIPHERS));
        self.groups.get_or_insert_with(|| all(default_groups()));
    }
}

/// Returns why a file of this text would be refused for its size; `None`: it would not. Defaults may make a large
/// file larger than a file may be.
pub fn too_large(text: &str) -> Option<String> {
    match text.len() as u64 > MAX_FILE {
        true => Some(format!("it has more than {MAX_FILE} bytes")),
        false => tree::parse(text).1.into_iter().next().map(|e| e.message),
    }
}

/// Writes variables in place of what came from them: it may be a secret.
fn name_variables(value: &mut Value, variables: &[(String, String)]) {
    match value {
        Value::Mapping(map) => map.values_mut().for_each(|v| name_variables(v, variables)),
        Value::Sequence(items) => items.iter_mut().for_each(|v| name_variables(v, variables)),
        Value::String(text) => {
            *text = text.replace("${", "$${");
            for (value, name) in variables {
                *text = text.replace(value, name);
            }
        }
        _ => {}
    }
}

/// Removes keys without a value.
fn prune(value: &mut Value) {
    match value {
        Value::Mapping(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Sequence(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Removes `client_certificate` of listeners that ask for none: `check` refuses it there.
fn prune_tls(tree: &mut Value) {
    let listeners = tree.get_mut("listeners").and_then(Value::as_sequence_mut);
    for listener in listeners.into_iter().flatten() {
        let tls = listener.get_mut("tls").and_then(Value::as_mapping_mut);
        if let Some(tls) = tls.filter(|tls| !tls.contains_key("client_ca")) {
            tls.remove("client_certificate");
        }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.written())
    }
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
    SourceAddress: |source| source.0.to_string(),
    AgentAddress: |address| address.0.to_string(),
    FileMode: |mode| format!("{:04o}", mode.0),
    MemoryLimit: |limit| match limit {
        MemoryLimit::Share(share) => share.written(),
        MemoryLimit::Bytes(bytes) => bytes.written(),
    },
}
