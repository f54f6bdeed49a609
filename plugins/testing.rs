//! Test helpers for plugins: a configuration of two pools, flows, and a reproducible random generator.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::PluginConfig;
use crate::api::{
    Assignment, EditError, Flow, How, NodeId, Plugins, PoolId, Route, Sticky, TlsFacts,
};
use crate::context::{Build, Keep, Mode, PluginError};
use crate::head::{Edits, Head};
use crate::lifetime::JITTER;
use crate::memory::{CAPACITY, EXPIRY};
use crate::units::{MaybeSpan, Span};

/// Facts of a flow that a test changes one by one.
pub struct Facts {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub host: &'static str,
    pub tls: bool,
    pub wall: SystemTime,
    pub now: Instant,
    pub random: u64,
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            client: SocketAddr::from(([192, 0, 2, 1], 50_000)),
            vip: SocketAddr::from(([200, 0, 0, 10], 80)),
            host: "push.mycompany.com",
            tls: false,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            now: Instant::now() + Duration::from_secs(3_600),
            random: 0x0123_4567_89ab_cdef,
        }
    }
}

impl Facts {
    pub fn client(mut self, s: &str) -> Self {
        self.client = s.parse().expect("client address");
        self
    }

    pub fn after(&self, d: Duration) -> Self {
        Facts {
            wall: self.wall + d,
            now: self.now + d,
            ..*self
        }
    }

    pub fn flow<'a>(&self, request: Option<&'a Head>) -> Flow<'a> {
        Flow {
            listener: "push",
            client: self.client,
            peer: self.client,
            source: self.client.ip(),
            vip: self.vip,
            tls: self.tls.then(TlsFacts::default),
            host: self.host,
            request,
            body: b"",
            wall: self.wall,
            now: self.now,
            random: self.random,
            last: None,
        }
    }
}

/// The only plugin of a listener. In a role that it lacks, the answers are those of a listener without plugins.
pub struct Built(Plugins);

impl Built {
    pub fn route(&self, flow: &Flow<'_>) -> Option<Route> {
        self.0.routers.first()?.route(flow)
    }

    pub fn request(&self, flow: &Flow<'_>, to: &Assignment<'_>, edits: &mut Edits) -> Edited {
        let editor = self.0.editors.first();
        editor.map_or(Ok(()), |p| p.request(flow, to, edits))
    }

    pub fn response(&self, flow: &Flow<'_>, to: &Assignment<'_>, edits: &mut Edits) -> Edited {
        let editor = self.0.editors.first();
        editor.map_or(Ok(()), |p| p.response(flow, to, edits))
    }
}

/// For the tests of stickiness.
impl Deref for Built {
    type Target = dyn Sticky;

    fn deref(&self) -> &Self::Target {
        &**self.0.sticky.first().expect("a plugin that sticks clients")
    }
}

type Edited = Result<(), EditError>;

/// Builds the plugin of a YAML block, as the core does: `sticky_ip: {}`.
pub fn build_on(
    yaml: &str,
    mode: Mode,
    keep: &Keep,
    dir: &Path,
) -> Result<Built, Vec<PluginError>> {
    build_at(yaml, mode, false, keep, dir)
}

/// Like [`build`], on a listener with TLS.
pub fn build_tls(yaml: &str) -> Built {
    build_at(yaml, Mode::Http, true, &Keep::default(), Path::new("."))
        .unwrap_or_else(|f| panic!("{yaml}: {f:?}"))
}

fn build_at(
    yaml: &str,
    mode: Mode,
    tls: bool,
    keep: &Keep,
    dir: &Path,
) -> Result<Built, Vec<PluginError>> {
    let config = decode(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let push = ["ls1".to_owned(), "ls2".to_owned(), "ls3".to_owned()];
    let other = ["ls1".to_owned(), "ls4".to_owned()];
    let plugin = config.build(&Build {
        listener: "push",
        mode,
        tls,
        nodes: &["ls1", "ls2", "ls3", "ls4"],
        pools: &[("push", &push), ("other", &other)],
        dir,
        keep,
    })?;
    let plugins = [(config.as_str(), plugin)].into_iter().collect();
    Ok(Built(plugins))
}

/// Like [`build_on`]; panics on a fault.
pub fn built(yaml: &str, mode: Mode, keep: &Keep, dir: &Path) -> Built {
    build_on(yaml, mode, keep, dir).unwrap_or_else(|f| panic!("{yaml}: {f:?}"))
}

/// Like [`built`], in mode http with a fresh [`Keep`].
pub fn build(yaml: &str) -> Built {
    built(yaml, Mode::Http, &Keep::default(), Path::new("."))
}

fn decode(yaml: &str) -> Result<PluginConfig, serde_yaml::Error> {
    let d = serde_yaml::Deserializer::from_str(yaml);
    serde_yaml::with::singleton_map_recursive::deserialize(d)
}

/// Returns the faults of a block, each as `path: message`. A value that cannot be decoded is the only fault.
pub fn faults(yaml: &str, mode: Mode) -> Vec<String> {
    if let Err(e) = decode(yaml) {
        let text = e.to_string();
        let key = text
            .split(": ")
            .next()
            .and_then(|path| path.split_once('.'));
        let expected = text.split_once(", expected ").map(|(_, rest)| rest);
        let told = key.zip(expected);
        let told = told.map(|((_, key), words)| format!("{key}: expected {words}"));
        return vec![told.unwrap_or(text)];
    }
    build_on(yaml, mode, &Keep::default(), Path::new("."))
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|f| {
            let expected = f.expected.map(|words| format!("expected {words}"));
            let why = expected.unwrap_or(f.message);
            format!("{}: {why}", f.path.join("."))
        })
        .collect()
}

/// Returns the default that `docs/configuration.md` gives `key` of the block `section`.
pub fn documented(section: &str, key: &str) -> &'static str {
    let text = include_str!("../docs/configuration.md");
    let (_, rest) = text
        .split_once(&format!("\n## `{section}`\n"))
        .expect(section);
    let mut rows = rest.lines().take_while(|line| !line.starts_with("## "));
    let row = rows
        .find(|line| line.starts_with(&format!("| `{key}` |")))
        .expect(key);
    row.split(" | ").nth(2).expect(key).trim_matches('`')
}

/// Holds the document against the defaults of a block that has a table.
pub fn table_defaults_are_documented(section: &str, max_age: MaybeSpan) {
    let shown = |age: MaybeSpan| age.0.map_or("none".to_owned(), |age| Span(age).to_string());
    for (key, default) in [
        ("max_age", shown(max_age)),
        ("jitter", format!("{}%", JITTER.0 * 100.0)),
        ("expiry", shown(EXPIRY)),
        ("capacity", CAPACITY.to_string()),
    ] {
        assert_eq!(documented(section, key), default, "{section}: {key}");
    }
}

/// Returns whether serde refuses the block.
pub fn undecodable(yaml: &str) -> bool {
    decode(yaml).is_err()
}

/// Makes an assignment of the pool `push`.
pub fn assigned(node: &str, how: How) -> Assignment<'_> {
    Assignment {
        pool: Some(PoolId::of("push")),
        node: NodeId::of(node),
        node_name: node,
        how,
    }
}

pub fn head(method: &str, path: &str) -> Head {
    head_with(method, path, &[])
}

/// Makes a request with `lines`, each a name and a value.
pub fn head_with(method: &str, path: &str, lines: &[(&str, &str)]) -> Head {
    let lines = lines.iter().map(|(name, value)| (*name, value.as_bytes()));
    Head::make_request(method, path, lines).expect("head")
}

/// Starts edits of `head`.
pub fn edits(head: &Head) -> Edits {
    Edits::new(Arc::new(head.clone()))
}

/// Starts edits of an answer with `lines`.
pub fn answer(status: u16, lines: &[(&str, &str)]) -> Edits {
    let lines = lines.iter().map(|(name, value)| (*name, value.as_bytes()));
    let head = Head::make_response(status, "", lines);
    Edits::new(Arc::new(head.expect("head")))
}

/// Returns the values of all lines called `name`, edits applied, as text.
pub fn texts(edits: &Edits, name: &str) -> Vec<String> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
    edits.values(name).map(text).collect()
}

/// SplitMix64: the same numbers in every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
