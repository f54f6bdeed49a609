//! A made-up client: its address, its cookie, its session and its flow.
//!
//! The client behaves as a push client does. It has one flow at a time: the first one creates a session,
//! later ones carry the session's id. A part of the clients returns cookies. The node answers as a
//! Lightstreamer or Diffusion server, or by the listener's own rule, so that `sticky_session` learns.

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
    /// The client's address; clients behind NAT share one.
    pub address: IpAddr,
    /// Whether the client returns cookies.
    pub takes_cookies: bool,
    /// `NAME=VALUE` of the cookie that the edge set.
    pub cookie: Option<Vec<u8>>,
    /// Number of the client's session, and the index of its node.
    pub session: Option<(u64, usize)>,
    /// The client's live flow.
    pub flow: Option<Live>,
    /// Changes with each scheduled flow, so that events of an earlier one have no effect.
    pub epoch: u32,
    /// The edge and the pool for whose node the client waits, and its number in that queue; `None`: it does not wait.
    pub waits: Option<(usize, PoolId, u64)>,
    /// When a failure took the client's flow (nanoseconds from the start), and the failure's index.
    pub cut: Option<(u64, usize)>,
    /// Whether a rebalance closed the client's last flow and the next has not begun.
    pub moves: bool,
}

/// Where requests and answers carry session ids: by the listener's `sticky_session` blocks, or, without
/// such a block, by both presets.
pub struct Places {
    learn: Vec<Learn>,
    recall: Vec<Recall>,
}

impl Places {
    /// Returns the places that apply to `listener`.
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

/// A live flow of a client.
pub struct Live {
    /// The flow's entry in its node's list of live flows.
    pub entered: Entered,
    /// Index of the node.
    pub node: usize,
    /// Index of the edge.
    pub edge: usize,
    /// The pool, and the addresses under which the assignment was learned; `None` if pinned.
    pub learned: Option<(PoolId, Vec<(usize, IpAddr)>)>,
    /// The plugins' watches of the answer.
    pub watches: Vec<Box<dyn Watch>>,
    /// The flow as its node sees it.
    pub flow: Arc<LiveFlow>,
}

impl Client {
    /// Makes client number `n`. The first clients are behind shared addresses, all later ones have an
    /// address of their own.
    pub fn new(n: usize, settings: &Settings, rng: &mut fastrand::Rng) -> Client {
        let shared = (settings.nat * settings.clients as f64).round() as usize;
        let address = match n < shared {
            // 198.18.0.0/15 is reserved for network tests (RFC 2544).
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

    /// Replaces the client by a new one, without cookie and session.
    pub fn renew(&mut self) {
        (self.cookie, self.session, self.cut) = (None, None, None);
        self.moves = false;
    }

    /// Returns the head of the client's next request and the beginning of its body; `None` if the request
    /// is not legal.
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

    /// Stores the cookie that the edge set in an answer, if this client takes cookies.
    pub fn takes(&mut self, answer: &Edits) {
        let line = answer.values("set-cookie").next();
        let pair = line.and_then(|l| l.split(|b| *b == b';').next());
        if let Some(pair) = pair.filter(|_| self.takes_cookies) {
            self.cookie = Some(pair.to_vec());
        }
    }
}

impl Live {
    /// Begins the node's answer for session `id`, and shows its head and body to the plugins' watches.
    pub fn answer(&mut self, id: u64, places: &Places, now: Instant) {
        let (mut head, mut body) = ("HTTP/1.1 200 OK\r\n".to_owned(), String::new());
        for place in &places.learn {
            match place {
                Learn::Line(prefix) => body += &format!("{prefix}S{id},50000,5000,*\r\n"),
                Learn::Json(name) => body += &format!("{{\"{name}\":\"S{id}\"}}\r\n"),
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
        self.entered.node.flows.learned(self.flow.id, &self.watches);
    }
}
