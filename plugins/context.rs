//! The inputs from which a plugin is built, and the faults that its block may have.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::api::{NodeId, PoolId, Target};

/// The layer at which a listener works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Layer 7: HTTP/1.1, HTTP/2, WebSocket.
    Http,
    /// Layer 4: bytes.
    Tcp,
}

/// A fault in a plugin's block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginError {
    /// Path below the block, in steps (`["hosts", "push1.mycompany.com"]`).
    pub path: Vec<String>,
    /// What is wrong, in one sentence; empty: the value itself, which the error message shows.
    pub message: String,
    /// What would be valid here.
    pub expected: Option<String>,
    /// Whether the key at `path` is wrong, as a name that is no host; else its value.
    pub on_key: bool,
    /// Words that would be valid here; the error message shows the nearest.
    pub candidates: Vec<String>,
}

impl PluginError {
    /// Makes a fault at `path` without candidates.
    pub fn new<S: Into<String>>(
        path: impl IntoIterator<Item = S>,
        message: impl Into<String>,
    ) -> Self {
        PluginError {
            path: path.into_iter().map(Into::into).collect(),
            message: message.into(),
            expected: None,
            on_key: false,
            candidates: Vec::new(),
        }
    }

    /// The same fault at `path`.
    pub fn at<S: Into<String>>(self, path: impl IntoIterator<Item = S>) -> Self {
        PluginError {
            path: path.into_iter().map(Into::into).collect(),
            ..self
        }
    }

    /// A fault of the key at `path`, with what was expected of it.
    pub fn key<S: Into<String>>(
        path: impl IntoIterator<Item = S>,
        expected: impl Into<String>,
    ) -> Self {
        PluginError {
            on_key: true,
            ..PluginError::expected(path, expected)
        }
    }

    /// A fault of the value at `path`, with what was expected of it.
    pub fn expected<S: Into<String>>(
        path: impl IntoIterator<Item = S>,
        expected: impl Into<String>,
    ) -> Self {
        PluginError {
            expected: Some(expected.into()),
            ..PluginError::new(path, "")
        }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message.as_str(), &self.expected) {
            ("", Some(expected)) => write!(f, "{}: expected {expected}", self.path.join(".")),
            (message, Some(expected)) => write!(f, "{message}; expected {expected}"),
            (message, None) => f.write_str(message),
        }
    }
}

/// The configuration around a plugin.
pub struct Build<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The listener's mode.
    pub mode: Mode,
    /// Whether TLS ends at the listener.
    pub tls: bool,
    /// All nodes by name.
    pub nodes: &'a [&'a str],
    /// All pools by name, with their nodes' names.
    pub pools: &'a [(&'a str, &'a [String])],
    /// Folder of the configuration file; relative paths are below it.
    pub dir: &'a std::path::Path,
    /// State that plugins keep across reloads; one for the process.
    pub keep: &'a Keep,
}

/// State that a plugin keeps across reloads and hands over to the process that succeeds this one.
pub trait Kept: Any + Send + Sync {
    /// Returns bytes from which [`Kept::restore`] makes the same state in another process; `None`: nothing to
    /// hand over.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    /// Takes over the state that the previous process saved; called once, on a fresh value. Ignores bytes
    /// that it cannot read (those of another version).
    fn restore(&mut self, _saved: &[u8]) {}
}

/// State that plugins keep across reloads: tables and the random key. Without it each reload would forget
/// every assignment.
#[derive(Default)]
pub struct Keep(Mutex<Things>);

#[derive(Default)]
struct Things {
    kept: HashMap<String, Arc<dyn Kept>>,
    /// State saved by the previous process, until a plugin asks for it.
    inherited: HashMap<String, Vec<u8>>,
}

impl Keep {
    /// Creates a store that holds only what another process has [saved](Keep::save).
    pub fn inherit(saved: Vec<(String, Vec<u8>)>) -> Self {
        Keep(Mutex::new(Things {
            inherited: saved.into_iter().collect(),
            ..Things::default()
        }))
    }

    /// Returns the value under `key`. Makes it with `make` if there is no value of this type. A plugin's keys
    /// begin with its word.
    pub fn get_or<T: Kept>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut things = self.0.lock();
        if let Some(found) = things.kept.get(key) {
            let found: Arc<dyn Any + Send + Sync> = found.clone();
            if let Ok(found) = found.downcast() {
                return found;
            }
        }
        let mut made = make();
        if let Some(saved) = things.inherited.remove(key) {
            made.restore(&saved);
        }
        let made = Arc::new(made);
        things.kept.insert(key.to_owned(), made.clone());
        made
    }

    /// Drops values that no plugin holds any more. Call it after a reload, when the old plugins are gone.
    pub fn sweep(&self) {
        let mut things = self.0.lock();
        things.kept.retain(|_, kept| Arc::strong_count(kept) > 1);
        things.inherited = HashMap::new();
    }

    /// Returns everything that another process can take over, by key.
    pub fn save(&self) -> Vec<(String, Vec<u8>)> {
        let kept = self.0.lock().kept.clone();
        let saved = kept.into_iter().map(|(key, k)| Some((key, k.save()?)));
        saved.flatten().collect()
    }
}

impl Build<'_> {
    /// Finds the pool or node called `name`. A pool wins if both have the name (the file check refuses that).
    pub fn target(&self, name: &str) -> Option<Target> {
        if self.pools.iter().any(|(p, _)| *p == name) {
            return Some(Target::Pool(PoolId::of(name)));
        }
        self.nodes
            .contains(&name)
            .then(|| Target::Node(NodeId::of(name)))
    }

    /// Like [`Build::target`]. Errors: a fault at `path` that lists the known names.
    pub fn target_at<S: Into<String>>(
        &self,
        name: &str,
        path: impl IntoIterator<Item = S>,
    ) -> Result<Target, PluginError> {
        self.target(name).ok_or_else(|| PluginError {
            candidates: self
                .pools
                .iter()
                .map(|(p, _)| *p)
                .chain(self.nodes.iter().copied())
                .map(str::to_owned)
                .collect(),
            ..PluginError::new(path, format!("unknown pool or node `{name}`"))
        })
    }
}
