//! Defines the block `sticky_session:`, its presets, faults and defaults.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use http::HeaderName;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::memory::{Memory, NAME};
use super::rule::Rule;
use super::{Learn, Recall, StickySession};
use crate::api::Plugin;
use crate::context::{Build, Mode, PluginError};
use crate::memory::shared::Shared;
use crate::memory::{Capacity, Keys};
use crate::units::{MaybeSpan, Share};
use crate::written::TableKeys;

/// Default `max_age`, unlimited: a session stays on its node until it ends, and new sessions are balanced
/// anyway.
pub(super) const MAX_AGE: MaybeSpan = MaybeSpan(None);

/// Most places of a list: each request is searched for all of them.
const MAX_PLACES: usize = 8;

/// Longest name or prefix of a place, in bytes.
const MAX_WORD: usize = 128;

/// Block `sticky_session:`.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The rule of a known push server, instead of `learn` and `recall`.
    #[serde(default)]
    pub preset: Option<Preset>,
    /// Places of a session's id in a node's answers; 1 to 8 places, or one without a list.
    #[serde(
        default,
        deserialize_with = "learn_places",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub learn: Vec<Learn>,
    /// Places of the id in requests; the first one found counts; 1 to 8 places, or one without a list.
    #[serde(
        default,
        deserialize_with = "recall_places",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub recall: Vec<Recall>,
    /// Longest life of an assignment, counted from when it was learned; from 1 s, or `none`, the default.
    #[serde(default)]
    pub max_age: Option<MaybeSpan>,
    /// Largest part of `max_age` by which an assignment may live shorter; default 10%.
    #[serde(default)]
    pub jitter: Option<Share>,
    /// Longest time that a session may be without a live flow; from 1 s, or `none`; default 1h.
    #[serde(default)]
    pub expiry: Option<MaybeSpan>,
    /// Most entries, 130 to 200 bytes each; 1 to 100,000,000; default 1,000,000. A full table evicts the oldest
    /// idle entry of the client address (IPv6: /64) that has the most.
    #[serde(default, deserialize_with = "Capacity::read")]
    pub capacity: Option<usize>,
    /// Name of the table; listeners with the same name share it. Default: the listener's name.
    #[serde(default)]
    pub table: Option<String>,
}

/// The rule of a known push server.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// TLCP: the line `CONOK,…`, and `LS_session` in the query or the form.
    Lightstreamer,
    /// The cookie `session`.
    Diffusion,
    /// Socket.IO, and Engine.IO below it: `sid` in the JSON of the open packet, and in the query.
    Socketio,
    /// SignalR: `connectionToken` (before it `connectionId`) in the JSON of `negotiate`, and `id` in the query.
    Signalr,
}

fn learn_places<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Learn>, D::Error> {
    d.deserialize_any(OneOrMore(PhantomData))
}

fn recall_places<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Recall>, D::Error> {
    d.deserialize_any(OneOrMore(PhantomData))
}

/// Reads a list of places, or one place alone: `learn: { json: sid }`.
struct OneOrMore<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMore<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, or one place")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
        Ok(vec![T::deserialize(MapAccessDeserializer::new(map))?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut places = Vec::new();
        while let Some(place) = list.next_element()? {
            places.push(place);
        }
        Ok(places)
    }
}

impl Preset {
    fn rule(self) -> Rule {
        let word = |s: &str| s.to_owned();
        match self {
            Preset::Lightstreamer => Rule {
                learn: vec![Learn::Line(word("CONOK,"))],
                recall: vec![
                    Recall::Query(word("LS_session")),
                    Recall::Form(word("LS_session")),
                ],
            },
            Preset::Diffusion => Rule {
                learn: vec![Learn::Cookie(word("session"))],
                recall: vec![Recall::Cookie(word("session"))],
            },
            Preset::Socketio => Rule {
                learn: vec![Learn::Json(word("sid"))],
                recall: vec![Recall::Query(word("sid"))],
            },
            Preset::Signalr => Rule {
                // Clients of version 0 of the protocol have no token and send the id.
                learn: vec![
                    Learn::Json(word("connectionToken")),
                    Learn::Json(word("connectionId")),
                ],
                recall: vec![Recall::Query(word("id"))],
            },
        }
    }
}

impl Config {
    /// Puts the default in place of each key that is not given.
    pub(crate) fn fill(&mut self) {
        let keys = TableKeys {
            max_age: &mut self.max_age,
            jitter: &mut self.jitter,
            expiry: &mut self.expiry,
            capacity: &mut self.capacity,
        };
        keys.fill(MAX_AGE);
    }

    /// Returns the places of a session's id in answers and in requests, by the preset or as given.
    pub fn places(&self) -> (Vec<Learn>, Vec<Recall>) {
        match self.preset.map(Preset::rule) {
            Some(rule) => (rule.learn, rule.recall),
            None => (self.learn.clone(), self.recall.clone()),
        }
    }

    /// Builds the plugin. Errors: mode tcp, neither a preset nor a rule or both, illegal places, values out
    /// of bounds.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let faults = self.faults(on);
        if !faults.is_empty() {
            return Err(faults);
        }
        let (learn, recall) = self.places();
        let (table, limits) = self.keys().table(on, MAX_AGE);
        let shared = Shared {
            place: self.keys().place(on),
            table: table.clone(),
            limits,
            proved: true,
        };
        Ok(Plugin::sticky(StickySession(Arc::new(Memory {
            rule: Rule { learn, recall },
            table,
            limits,
            shared: Arc::new(shared),
        }))))
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            word: NAME,
            max_age: self.max_age,
            jitter: self.jitter,
            expiry: self.expiry,
            capacity: self.capacity,
            table: self.table.as_deref(),
            ..Keys::default()
        }
    }

    fn faults(&self, on: &Build<'_>) -> Vec<PluginError> {
        let mut faults = self.keys().faults();
        if on.mode != Mode::Http {
            let why = "the session id is read from HTTP; expected mode http";
            faults.push(PluginError::new(None::<String>, why));
        }
        if self.preset.is_none() {
            faults.extend(Learn::faults("learn", &self.learn));
            faults.extend(Recall::faults("recall", &self.recall));
            return faults;
        }
        for (key, given) in [
            ("learn", !self.learn.is_empty()),
            ("recall", !self.recall.is_empty()),
        ] {
            if given {
                let why = "the preset already says where the id is; remove this key or `preset`";
                faults.push(PluginError::new([key], why));
            }
        }
        faults
    }
}

impl Learn {
    /// What is wrong with the list `key`.
    fn faults(key: &str, places: &[Learn]) -> Vec<PluginError> {
        wrong_places(key, places.iter().map(Learn::entry).collect())
    }

    fn entry(&self) -> (&'static str, Kind, &str) {
        match self {
            Learn::Line(s) => ("line", Kind::Text, s),
            Learn::Json(s) => ("json", Kind::Text, s),
            Learn::Cookie(s) => ("cookie", Kind::Token, s),
            Learn::Header(s) => ("header", Kind::Token, s),
        }
    }
}

impl Recall {
    /// What is wrong with the list `key`.
    pub(crate) fn faults(key: &str, places: &[Recall]) -> Vec<PluginError> {
        wrong_places(key, places.iter().map(Recall::entry).collect())
    }

    fn entry(&self) -> (&'static str, Kind, &str) {
        match self {
            Recall::Query(s) => ("query", Kind::Parameter, s),
            Recall::Form(s) => ("form", Kind::Parameter, s),
            Recall::Cookie(s) => ("cookie", Kind::Token, s),
            Recall::Header(s) => ("header", Kind::Token, s),
            Recall::Path(s) => ("path", Kind::Path, s),
        }
    }
}

/// The syntax of a place's word.
enum Kind {
    Token,
    Parameter,
    Path,
    Text,
}

fn wrong_places(list: &str, places: Vec<(&'static str, Kind, &str)>) -> Vec<PluginError> {
    if !(1..=MAX_PLACES).contains(&places.len()) {
        return vec![PluginError {
            expected: Some(format!("1 to {MAX_PLACES} places")),
            ..PluginError::new([list], format!("a list of {} places", places.len()))
        }];
    }
    let places = places.into_iter().enumerate();
    places
        .filter_map(|(i, place)| wrong(list, i, place))
        .collect()
}

fn wrong(list: &str, i: usize, (key, kind, word): (&str, Kind, &str)) -> Option<PluginError> {
    let visible = |s: &str| s.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let right = (1..=MAX_WORD).contains(&word.len())
        && visible(word)
        && match kind {
            // A cookie's name is a token like a header's (RFC 6265 §4.1.1).
            Kind::Token => word.parse::<HeaderName>().is_ok(),
            Kind::Parameter => !word.contains(['&', '=', ' ', '%', '+']),
            Kind::Path => word.starts_with('/') && word.ends_with('/'),
            Kind::Text => true,
        };
    let expected = match kind {
        Kind::Token => "a name of letters, digits and `-`",
        Kind::Parameter => "a parameter's name without `&`, `=`, `%`",
        Kind::Path => "the path before the id, such as `/session/`",
        Kind::Text if key == "json" => "a name in a JSON object, 1 to 128 visible characters",
        Kind::Text => "the beginning of a line, 1 to 128 visible characters",
    };
    let path = [list, &i.to_string(), key];
    (!right).then(|| PluginError::expected(path, expected))
}
