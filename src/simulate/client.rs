//! A made-up client: its address, its cookies, its session, and the flow it has.
//!
//! It behaves as a push client does: one flow at a time; the first makes a session, later ones carry
//! its id; cookies are returned by those that take them. Its node answers as a Lightstreamer or Diffusion
//! server would, or by the listener's own rule, so that `sticky_session` learns.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use pushgate_plugins::PluginConfig;
use pushgate_plugins::api::{PoolId, Watch};
use pushgate_plugins::head::{Edits, Head};
use pushgate_plugins::sticky_session::{self, Learn, Preset, Recall};

use super::script::Settings;
use crate::config::Listener;
use crate::upstream::LiveFlow;
use crate::upstream::node::Entered;

/// One client.
pub struct Client {
    /// Its address, perhaps shared.
    pub address: IpAddr,
    /// Whether it returns cookies.
    pub takes_cookies: bool,
    /// `NAME=VALUE` of the cookie the edge gave it.
    pub cookie: Option<Vec<u8>>,
    /// Number of its session and the node that has it.
    pub session: Option<(u64, usize)>,
    /// Its flow.
    pub flow: Option<Live>,
    /// Counts what it began, so that an event of a flow that is over is not taken for the next's.
    pub epoch: u32,
    /// Its number in the queue of those that wait for a node.
    pub waits: Option<u64>,
    /// When it lost its flow, in nanoseconds, and by which failure.
    pub cut: Option<(u64, usize)>,
    /// Whether a rebalance has closed its flow, and it has had none since.
    pub moves: bool,
}

/// Where sessions' ids are told: by the listener's `sticky_session` blocks, or by both presets.
pub struct Places {
    learn: Vec<Learn>,
    recall: Vec<Recall>,
}

impl Places {
    /// Those of a listener.
    pub fn of(listener: &Listener) -> Places {
        let block = |p: &PluginConfig| match p {
            PluginConfig::StickySession(c) => Some(c.places()),
            _ => None,
        };
        let own: Vec<_> = listener.plugins.iter().filter_map(block).collect();
        let preset = |preset| {
            let preset = Some(preset);
            sticky_session::Config {
                preset,
                ..Default::default()
            }
            .places()
        };
        let all = match own.is_empty() {
            true => vec![preset(Preset::Lightstreamer), preset(Preset::Diffusion)],
            false => own,
        };
        let (learn, recall): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        Places {
            learn: learn.concat(),
            recall: recall.concat(),
        }
    }
}

/// A flow a client has.
pub struct Live {
    /// Membership of the node.
    pub entered: Entered,
    /// Place of the node.
    pub node: usize,
    /// The pool and the addresses it was learned under; `None` if pinned.
    pub learned: Option<(PoolId, Vec<(usize, IpAddr)>)>,
    /// Who looks on.
    pub watches: Vec<Box<dyn Watch>>,
    /// The flow as its node sees it.
    pub flow: Arc<LiveFlow>,
}

impl Client {
    /// Client number `n`: of those behind shared addresses first, then each on its own.
    pub fn new(n: usize, settings: &Settings, rng: &mut fastrand::Rng) -> Client {
        let shared = (settings.nat * settings.clients as f64).round() as usize;
        let address = match n < shared {
            // 198.18.0.0/15 is for tests of networks (RFC 2544).
            true => Ipv4Addr::from(0xc612_0000_u32 + (n / settings.per_address) as u32),
            false => Ipv4Addr::from(0x0a00_0000_u32 + n as u32),
        };
        Client {
            address: address.into(),
            takes_cookies: rng.f64() < settings.cookies,
            cookie: None,
            session: None,
            flow: None,
            epoch: 0,
            waits: None,
            cut: None,
            moves: false,
        }
    }

    /// Another client in its place: nothing is remembered.
    pub fn renew(&mut self) {
        (self.cookie, self.session, self.cut) = (None, None, None);
        self.moves = false;
    }

    /// The head of its next request, and the beginning of its body.
    pub fn request(&self, host: &str, places: &Places) -> Option<(Head, String)> {
        let id = self.session.map(|(id, _)| format!("S{id}"));
        let (mut path, mut query) = ("/lightstreamer/bind_session.txt".to_owned(), String::new());
        let (mut lines, mut body) = (Vec::new(), String::new());
        match &id {
            None => path = "/lightstreamer/create_session.txt".to_owned(),
            Some(id) => {
                for place in &places.recall {
                    match place {
                        Recall::Query(name) => query = format!("{query}&{name}={id}"),
                        Recall::Form(name) => body = format!("{body}&{name}={id}"),
                        Recall::Cookie(name) if self.takes_cookies => {
                            lines.push(("cookie", format!("{name}={id}")));
                        }
                        Recall::Cookie(_) => {}
                        Recall::Header(name) => lines.push((name, id.clone())),
                        Recall::Path(prefix) => path = format!("{prefix}{id}"),
                    }
                }
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", &query[1..]);
        }
        let mut fields = vec![("host", host.as_bytes())];
        fields.extend(self.cookie.as_ref().map(|c| ("cookie", c.as_slice())));
        fields.extend(lines.iter().map(|(name, value)| (*name, value.as_bytes())));
        Some((Head::make_request("POST", &path, fields).ok()?, body))
    }

    /// Takes the cookie the edge put on an answer.
    pub fn takes(&mut self, answer: &Edits) {
        let line = answer.values("set-cookie").next();
        let pair = line.and_then(|l| l.split(|b| *b == b';').next());
        if let Some(pair) = pair.filter(|_| self.takes_cookies) {
            self.cookie = Some(pair.to_vec());
        }
    }
}

impl Live {
    /// The node answers for session `id`; those who look on are shown what they would see.
    pub fn answer(&mut self, id: u64, places: &Places, now: Instant) {
        let (mut head, mut body) = ("HTTP/1.1 200 OK\r\n".to_owned(), String::new());
        for place in &places.learn {
            match place {
                Learn::Line(prefix) => body += &format!("{prefix}S{id},50000,5000,*\r\n"),
                Learn::Cookie(name) => head += &format!("Set-Cookie: {name}=S{id}; HttpOnly\r\n"),
                Learn::Header(name) => head += &format!("{name}: S{id}\r\n"),
            }
        }
        head += "\r\n";
        self.flow.begin();
        for watch in &mut self.watches {
            watch.head(head.as_bytes(), now);
            watch.body(body.as_bytes(), now);
        }
        self.entered.node.learned(self.flow.id, &self.watches);
    }
}
