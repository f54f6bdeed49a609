//! Routes by the path of a request: the longest listed prefix wins.
//!
//! In: the path without its query, as the node will read it. Out: a pool, a node or a refusal. A prefix ends
//! at the end of a segment: `/push` covers `/push` and `/push/a`, not `/pushed`. A path that two servers read
//! differently is refused if the two readings have different routes.
//! Source: Lightstreamer clustering §2.2 (servers of several kinds behind one balancer); RFC 3986 §3.3, §6.2.2.

mod reading;

use std::collections::HashMap;

use http::StatusCode;

use serde::Deserialize;

use crate::api::{Flow, Plugin, Route, Router};
use crate::context::{Build, Mode, PluginError};
use crate::host_route::Unknown;
use crate::units::Pairs;
use reading::{Reader, is_plain, read};

/// Block `path_route:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Path prefix (`/lightstreamer`, `/`) to pool or node.
    pub paths: Pairs,
    /// What to do with a flow whose path is not listed; default `pass`.
    #[serde(default)]
    pub unknown: Unknown,
}

struct PathRoute {
    /// Keyed by the prefix without its last `/`.
    paths: HashMap<String, Entry>,
    unknown: Option<Route>,
}

/// Two servers read a path differently, and the two readings have different routes.
struct Ambiguous;

/// A prefix as written in the file, and its route.
struct Entry {
    path: String,
    route: Route,
}

impl Config {
    /// Builds the plugin. Errors: mode tcp, an unknown target, an illegal path, two entries for one path, a
    /// status outside 400 to 599.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let mut faults = Vec::new();
        if on.mode == Mode::Tcp {
            faults.push(PluginError::new(None::<String>, "a path needs mode http"));
        }
        if self.paths.0.is_empty() {
            faults.push(PluginError::expected(["paths"], "at least one path"));
        }
        let mut paths = HashMap::new();
        for (path, target) in &self.paths.0 {
            if !legal(path) {
                let expected = "the beginning of a path, such as `/push`";
                faults.push(PluginError::key(["paths", path], expected));
            }
            let entry = match on.target_at(target, ["paths", path]) {
                Ok(t) => Entry {
                    path: path.clone(),
                    route: Route::To(t),
                },
                Err(f) => {
                    faults.push(f);
                    continue;
                }
            };
            let Some(normal) = read(path, Reader::Strict) else {
                let why = "expected a path without `..;`, which servers read differently";
                faults.push(PluginError::new(["paths", path], why));
                continue;
            };
            if paths.insert(bare(&normal).to_owned(), entry).is_some() {
                let why = "the same path is listed twice (a last `/` does not count)";
                faults.push(PluginError::new(["paths", path], why));
            }
        }
        let unknown = self.unknown.route(on).unwrap_or_else(|f| {
            faults.push(f);
            None
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Plugin::router(PathRoute { paths, unknown }))
    }
}

/// Returns whether `path` is legal in a request: visible ASCII, no query, no fragment.
fn legal(path: &str) -> bool {
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#');
    path.starts_with('/') && path.bytes().all(fits)
}

fn bare(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

impl Router for PathRoute {
    fn route(&self, flow: &Flow<'_>) -> Option<Route> {
        let Ok(found) = self.find(flow) else {
            return Some(Route::Refuse(StatusCode::BAD_REQUEST));
        };
        found.map(|e| &e.route).or(self.unknown.as_ref()).cloned()
    }

    fn rule(&self, flow: &Flow<'_>) -> Vec<String> {
        match self.find(flow) {
            Ok(Some(entry)) => vec!["paths".to_owned(), entry.path.clone()],
            Ok(None) => vec!["unknown".to_owned()],
            Err(Ambiguous) => vec!["paths".to_owned()],
        }
    }
}

impl PathRoute {
    /// Finds the entry of a flow's path; `None`: it has none.
    fn find(&self, flow: &Flow<'_>) -> Result<Option<&Entry>, Ambiguous> {
        let Some(path) = flow.request.map(|r| r.path()) else {
            return Ok(None);
        };
        if is_plain(path) {
            return Ok(self.longest(path));
        }
        let of = |reader| {
            let path = read(path, reader).ok_or(Ambiguous)?;
            Ok(self.longest(&path))
        };
        let (strict, lenient) = (of(Reader::Strict)?, of(Reader::Lenient)?);
        match strict.map(|e| &e.path) == lenient.map(|e| &e.path) {
            true => Ok(strict),
            false => Err(Ambiguous),
        }
    }

    fn longest(&self, path: &str) -> Option<&Entry> {
        // The search runs from the right, so the first hit is the longest prefix.
        let ends = path.rmatch_indices('/').map(|(i, _)| i);
        let mut ends = std::iter::once(path.len()).chain(ends);
        ends.find_map(|end| self.paths.get(&path[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{NodeId, PoolId, Target};
    use crate::testing::{Facts, build, faults, head, undecodable};

    fn routed(yaml: &str, path: &str) -> Option<Route> {
        build(yaml).route(&Facts::default().flow(Some(&head("GET", path))))
    }

    #[test]
    fn the_longest_beginning_wins() {
        let yaml = "path_route: { paths: { /a: ls1, /a/b/: ls2, /c/: push } }";
        let node = |n| Some(Route::To(Target::Node(NodeId::of(n))));
        for (path, want) in [
            ("/", None),
            ("/x", None),
            ("/ab", None),
            ("/A", None),
            ("*", None),
            ("/a", node("ls1")),
            ("/a/", node("ls1")),
            ("/a?b=/a/b", node("ls1")),
            ("/a/bc", node("ls1")),
            ("/a/b", node("ls2")),
            ("/a/b/c/d", node("ls2")),
            ("/c", Some(Route::To(Target::Pool(PoolId::of("push"))))),
        ] {
            assert_eq!(routed(yaml, path), want, "{path}");
        }
        assert_eq!(
            routed("path_route: { paths: { /: ls1 } }", "/any/thing"),
            node("ls1")
        );
        let unknown = "path_route: { paths: { /a: ls1 }, unknown: { refuse: 404 } }";
        assert_eq!(
            routed(unknown, "/b"),
            Some(Route::Refuse(StatusCode::NOT_FOUND))
        );
    }

    /// Source: CVE-2018-11784 and others of `..;`. Fails if a path is compared as it is sent: a client would
    /// choose the route of one path and get the answer of another.
    #[test]
    fn a_path_is_compared_as_the_node_reads_it() {
        let yaml = "path_route: { paths: { /a: ls1, /b%2d1/: ls2 } }";
        let node = |n| Some(Route::To(Target::Node(NodeId::of(n))));
        let refused = Some(Route::Refuse(StatusCode::BAD_REQUEST));
        for (path, want) in [
            ("/a/../b-1/x", node("ls2")),
            ("/a/%2e%2e/b-1", node("ls2")),
            ("/%61;v=1/x", node("ls1")),
            ("/a/../c", None),
            ("/a/x%2fy//z", node("ls1")),
            ("/a/..;/b-1", refused.clone()),
            ("/a/..%2fb-1", refused.clone()),
            ("/a\\..\\b-1", refused.clone()),
            ("//a", refused.clone()),
            ("//c", None),
        ] {
            assert_eq!(routed(yaml, path), want, "{path}");
        }
        let all = "path_route: { paths: { /: ls1 } }";
        assert_eq!(
            routed(all, "/a/..%2fb"),
            node("ls1"),
            "one route for both readings"
        );
        assert_eq!(
            faults("path_route: { paths: { '/a/..;/': ls1 } }", Mode::Http).len(),
            1
        );
    }

    #[test]
    fn every_fault_is_found_in_one_run() {
        let yaml = "path_route: { paths: { a: ls1, '/a?b': ls1, /c: nowhere, /d: ls1, /d/: ls2 }, \
                    unknown: { to: nobody } }";
        let found = faults(yaml, Mode::Tcp);
        for (i, want) in [
            ": a path needs mode http",
            "paths.a: expected the beginning",
            "paths./a?b: expected the beginning",
            "paths./c: unknown pool or node",
            "paths./d/: the same path",
            "unknown.to: unknown pool or node",
        ]
        .iter()
        .enumerate()
        {
            assert!(found[i].starts_with(want), "{want} in {found:?}");
        }
        assert_eq!(faults("path_route: { paths: {} }", Mode::Http).len(), 1);
        assert!(undecodable("path_route: {}"));
    }
}
