//! Writes the reference with one change, and notes its place.

use crate::config::tree::{Entry, Kind, Node, Step};

/// A change of the key or value at a path.
#[derive(Clone, Copy)]
pub(super) enum Change<'t> {
    /// Nothing.
    None,
    /// Another value.
    Value(&'t str),
    /// The key twice, with the same value.
    Twice,
    /// Another key.
    Key(&'t str),
    /// Neither key nor value.
    Left,
}

/// A file, one value a line, with one change.
pub(super) struct Page<'t> {
    pub text: String,
    path: &'t [Step],
    change: Change<'t>,
    /// Line and column of what was changed, from 1.
    pub at: (usize, usize),
}

impl<'t> Page<'t> {
    /// Writes `tree` with `change` at `path`.
    pub fn of(tree: &Node, path: &'t [Step], change: Change<'t>) -> Self {
        let mut page = Page {
            text: String::new(),
            path,
            change,
            at: (0, 0),
        };
        page.node(tree, &mut Vec::new());
        page.text.push('\n');
        page
    }

    fn here(&mut self) {
        let line = self.text.rsplit('\n').next().unwrap_or_default();
        self.at = (
            self.text.matches('\n').count() + 1,
            line.chars().count() + 1,
        );
    }

    fn node(&mut self, node: &Node, here: &mut Vec<Step>) {
        if let (true, Change::Value(value)) = (here == self.path, self.change) {
            self.here();
            self.text.push_str(value);
            return;
        }
        match &node.kind {
            Kind::Scalar { text, plain: true } => self.text.push_str(text),
            Kind::Scalar { text, plain: false } => self.text.push_str(&format!("\"{text}\"")),
            Kind::List(items) => {
                self.text.push_str("[\n");
                for (i, item) in items.iter().enumerate() {
                    here.push(Step::Index(i));
                    self.node(&item.node, here);
                    here.pop();
                    self.text.push_str(",\n");
                }
                self.text.push(']');
            }
            Kind::Map(entries) => {
                self.text.push_str("{\n");
                entries.iter().for_each(|entry| self.entry(entry, here));
                self.text.push('}');
            }
        }
    }

    fn entry(&mut self, entry: &Entry, here: &mut Vec<Step>) {
        here.push(Step::from(entry.key.as_str()));
        let change = (here == self.path).then_some(self.change);
        let (times, key) = match change {
            Some(Change::Left) => (0, entry.key.as_str()),
            Some(Change::Twice) => (2, entry.key.as_str()),
            Some(Change::Key(key)) => (1, key),
            Some(Change::None | Change::Value(_)) | None => (1, entry.key.as_str()),
        };
        for _ in 0..times {
            if change.is_some() {
                self.here();
            }
            self.text.push_str(&format!("\"{key}\": "));
            self.node(&entry.node, here);
            self.text.push_str(",\n");
        }
        here.pop();
    }
}

/// Returns the paths of all values of `node`, parents first.
pub(super) fn paths(node: &Node) -> Vec<Vec<Step>> {
    fn collect(node: &Node, here: &mut Vec<Step>, all: &mut Vec<Vec<Step>>) {
        let mut below = |step: Step, node: &Node| {
            here.push(step);
            all.push(here.clone());
            collect(node, here, all);
            here.pop();
        };
        match &node.kind {
            Kind::Scalar { .. } => {}
            Kind::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    below(Step::Index(i), &item.node);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    below(Step::from(entry.key.as_str()), &entry.node);
                }
            }
        }
    }
    let mut all = Vec::new();
    collect(node, &mut Vec::new(), &mut all);
    all
}

/// Returns a tree that is still valid, without most of what is far from `path`: a tenth of the time.
pub(super) fn near(tree: &Node, path: &[Step]) -> Node {
    let mut near = tree.clone();
    let top = path.first();
    let in_list = |list: &[Step], i: usize| {
        path.starts_with(list) && path.get(list.len()) == Some(&Step::Index(i))
    };
    for (section, kept) in [("nodes", ["address", ""]), ("pools", ["nodes", "discover"])] {
        if top != Some(&Step::from(section)) {
            for name in names(tree, &[Step::from(section)]) {
                keep(
                    &mut near,
                    &[Step::from(section), Step::from(name.as_str())],
                    &kept,
                );
            }
        }
    }
    // Keys and keystores are opened each time, which takes as long as all else.
    let certificates = [Step::from("certificates")];
    if top != certificates.first() {
        keep(&mut near, &certificates, &["wildcard"]);
    }
    let listeners = [Step::from("listeners")];
    for i in 0..count(tree, &listeners) {
        let listener = [Step::from("listeners"), Step::Index(i)];
        if !in_list(&listeners, i) && path.len() > 1 {
            let rest: &[&str] = if i == 0 {
                &["name", "bind", "mode", "to"]
            } else {
                &["name", "bind", "mode", "to", "plugins"]
            };
            keep(&mut near, &listener, rest);
        }
        let plugins = [&listener[..], &[Step::from("plugins")]].concat();
        if path.starts_with(&plugins) {
            let around = ["name", "bind", "mode", "tls", "to", "plugins"];
            keep(&mut near, &listener, &around);
        } else if i == 0 && path.starts_with(&listener) {
            near.cut(&plugins);
        }
        for j in 0..count(&near, &plugins) {
            let plugin = [&plugins[..], &[Step::Index(j)]].concat();
            if path.starts_with(&plugins) && path.len() > plugins.len() && !in_list(&plugins, j) {
                replace(&mut near, &plugin);
            }
        }
    }
    near
}

fn names(tree: &Node, path: &[Step]) -> Vec<String> {
    tree.keys(path).into_iter().map(str::to_owned).collect()
}

fn count(tree: &Node, path: &[Step]) -> usize {
    match tree.find(path).map(|n| &n.kind) {
        Some(Kind::List(items)) => items.len(),
        _ => 0,
    }
}

fn keep(tree: &mut Node, path: &[Step], kept: &[&str]) {
    if let Some(Kind::Map(entries)) = tree.find_mut(path).map(|n| &mut n.kind) {
        entries.retain(|e| kept.contains(&e.key.as_str()));
    }
}

/// Replaces a plugin by one without keys, so that later plugins keep their numbers.
fn replace(tree: &mut Node, plugin: &[Step]) {
    if let Some(Kind::Map(entries)) = tree.find_mut(plugin).map(|n| &mut n.kind)
        && let Some(entry) = entries.first_mut()
    {
        entry.key = "forwarded".to_owned();
        entry.node.kind = Kind::Map(Vec::new());
    }
}
