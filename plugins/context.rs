//! What a plugin is built from, and the faults its block may have.

use crate::api::{NodeId, PoolId, Target};

/// Layer at which a listener works.
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
pub struct Fault {
    /// Path below the block, in steps (`["hosts", "push1.mycompany.com"]`).
    pub path: Vec<String>,
    /// What is wrong and what was expected, one sentence.
    pub message: String,
    /// Words that would have been right; the reader is shown the nearest.
    pub candidates: Vec<String>,
}

impl Fault {
    /// A fault at `path` without candidates.
    pub fn new<S: Into<String>>(
        path: impl IntoIterator<Item = S>,
        message: impl Into<String>,
    ) -> Self {
        Fault {
            path: path.into_iter().map(Into::into).collect(),
            message: message.into(),
            candidates: Vec::new(),
        }
    }
}

/// The configuration around a plugin.
pub struct Build<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The listener's mode.
    pub mode: Mode,
    /// Whether clients reach the listener by TLS that ends here.
    pub tls: bool,
    /// All nodes by name.
    pub nodes: &'a [&'a str],
    /// All pools by name, with their nodes' names.
    pub pools: &'a [(&'a str, &'a [String])],
    /// Folder of the configuration file; relative paths are below it.
    pub dir: &'a std::path::Path,
}

impl Build<'_> {
    /// The pool or node called `name`; pools win where both have the name (the file check refuses that).
    pub fn target(&self, name: &str) -> Option<Target> {
        if self.pools.iter().any(|(p, _)| *p == name) {
            return Some(Target::Pool(PoolId::of(name)));
        }
        self.nodes
            .contains(&name)
            .then(|| Target::Node(NodeId::of(name)))
    }

    /// [`Build::target`], with a fault at `path` that names the nearest candidates.
    pub fn target_at<S: Into<String>>(
        &self,
        name: &str,
        path: impl IntoIterator<Item = S>,
    ) -> Result<Target, Fault> {
        self.target(name).ok_or_else(|| Fault {
            candidates: self
                .pools
                .iter()
                .map(|(p, _)| *p)
                .chain(self.nodes.iter().copied())
                .map(str::to_owned)
                .collect(),
            ..Fault::new(path, format!("unknown pool or node `{name}`"))
        })
    }
}
