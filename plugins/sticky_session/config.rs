//! The block `sticky_session:`, its presets, faults and defaults.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::rule::Rule;
use super::{Learn, Memory, Recall, StickySession};
use crate::api::Plugin;
use crate::context::{Build, Fault, Mode};
use crate::sticky_ip::table::{Limits, Table};
use crate::units::MaybeSpan;

/// No end: a session is where it is until it ends, and new ones are balanced anyway.
const MAX_AGE: MaybeSpan = MaybeSpan(None);

/// No server keeps a session of a client that has been away for longer.
const EXPIRY: MaybeSpan = MaybeSpan(Some(Duration::from_secs(3_600)));

/// 130 MB when full.
const CAPACITY: usize = 1_000_000;

/// Most entries that may be asked for: 13 GB.
const MAX_CAPACITY: usize = 100_000_000;

/// Most places of a list: each is looked at for every request.
const MAX_PLACES: usize = 8;

/// Longest name or beginning of a place.
const MAX_WORD: usize = 128;

/// Block `sticky_session:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The rule of a known push server, instead of `learn` and `recall`.
    #[serde(default)]
    pub preset: Option<Preset>,
    /// Where nodes tell a session's id; 1 to 8 places.
    #[serde(default)]
    pub learn: Vec<Learn>,
    /// Where requests tell it, first found counts; 1 to 8 places.
    #[serde(default)]
    pub recall: Vec<Recall>,
    /// Longest life of an assignment from when it was learned; from 1 s, or `none`, the default.
    #[serde(default)]
    pub max_age: Option<MaybeSpan>,
    /// Longest time without a live flow; from 1 s, or `none`; default 1h.
    #[serde(default)]
    pub expiry: Option<MaybeSpan>,
    /// Most entries, about 130 bytes each; 1 to 100,000,000; default 1,000,000.
    #[serde(default)]
    pub capacity: Option<usize>,
    /// Name of the table; listeners that name the same share it. Default: the listener's name.
    #[serde(default)]
    pub table: Option<String>,
}

/// The rule of a known push server.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// TLCP: the line `CONOK,…`, and `LS_session` in the query or the form.
    Lightstreamer,
    /// The cookie `session`.
    Diffusion,
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
        }
    }
}

impl Config {
    /// Builds the plugin. Errors: mode tcp, neither a preset nor a rule or both, places that cannot
    /// be, bounds.
    pub fn build(&self, on: &Build<'_>) -> Result<Box<dyn Plugin>, Vec<Fault>> {
        let faults = self.faults(on);
        if !faults.is_empty() {
            return Err(faults);
        }
        let limits = Limits {
            max_age: self.max_age.unwrap_or(MAX_AGE).0,
            expiry: self.expiry.unwrap_or(EXPIRY).0,
            capacity: self.capacity.unwrap_or(CAPACITY),
            cut_at_max_age: false,
        };
        let (kind, name) = match &self.table {
            Some(table) => ("table", table.as_str()),
            None => ("listener", on.listener),
        };
        let own = || Rule {
            learn: self.learn.clone(),
            recall: self.recall.clone(),
        };
        let key = format!("sticky_session {kind} {name}");
        Ok(Box::new(StickySession(Arc::new(Memory {
            rule: self.preset.map_or_else(own, Preset::rule),
            table: on.keep.get_or(&key, || Table::new(limits.capacity)),
            limits,
        }))))
    }

    fn faults(&self, on: &Build<'_>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut check = |right: bool, key: &str, why: &str| {
            if !right {
                faults.push(Fault::new((!key.is_empty()).then_some(key), why));
            }
        };
        check(
            on.mode == Mode::Http,
            "",
            "a session's id is in HTTP; expected mode http",
        );
        let long = |s: Option<MaybeSpan>| {
            let span = s.and_then(|s| s.0);
            span.is_none_or(|d| d >= Duration::from_secs(1))
        };
        check(
            long(self.max_age),
            "max_age",
            "expected at least 1s, or `none`",
        );
        check(
            long(self.expiry),
            "expiry",
            "expected at least 1s, or `none`",
        );
        let capacity = self
            .capacity
            .is_none_or(|c| (1..=MAX_CAPACITY).contains(&c));
        check(capacity, "capacity", "expected 1 to 100000000 entries");
        let own = [("learn", self.learn.len()), ("recall", self.recall.len())];
        for (key, places) in own {
            match self.preset {
                Some(_) => check(
                    places == 0,
                    key,
                    "the preset says where the id is; expected one of both",
                ),
                None => check(
                    (1..=MAX_PLACES).contains(&places),
                    key,
                    "expected 1 to 8 places, or a `preset`",
                ),
            }
        }
        let learn = self.learn.iter().enumerate();
        faults.extend(learn.filter_map(|(i, place)| wrong("learn", i, place.word())));
        let recall = self.recall.iter().enumerate();
        faults.extend(recall.filter_map(|(i, place)| wrong("recall", i, place.word())));
        faults
    }
}

impl Learn {
    fn word(&self) -> (&'static str, Kind, &str) {
        match self {
            Learn::Line(s) => ("line", Kind::Text, s),
            Learn::Cookie(s) => ("cookie", Kind::Token, s),
            Learn::Header(s) => ("header", Kind::Token, s),
        }
    }
}

impl Recall {
    fn word(&self) -> (&'static str, Kind, &str) {
        match self {
            Recall::Query(s) => ("query", Kind::Parameter, s),
            Recall::Form(s) => ("form", Kind::Parameter, s),
            Recall::Cookie(s) => ("cookie", Kind::Token, s),
            Recall::Header(s) => ("header", Kind::Token, s),
            Recall::Path(s) => ("path", Kind::Path, s),
        }
    }
}

/// What a place's word must be.
enum Kind {
    Token,
    Parameter,
    Path,
    Text,
}

fn wrong(list: &str, i: usize, (key, kind, word): (&str, Kind, &str)) -> Option<Fault> {
    let visible = |s: &str| s.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let right = (1..=MAX_WORD).contains(&word.len())
        && visible(word)
        && match kind {
            // A cookie's name is a token as a header's is (RFC 6265 §4.1.1).
            Kind::Token => word.parse::<HeaderName>().is_ok(),
            Kind::Parameter => !word.contains(['&', '=', ' ', '%', '+']),
            Kind::Path => word.starts_with('/') && word.ends_with('/'),
            Kind::Text => true,
        };
    let expected = match kind {
        Kind::Token => "expected a name of letters, digits and `-`",
        Kind::Parameter => "expected a parameter's name without `&`, `=`, `%`",
        Kind::Path => "expected the path before the id, as `/session/`",
        Kind::Text => "expected the beginning of a line, 1 to 128 visible characters",
    };
    let path = [list, &i.to_string(), key];
    (!right).then(|| Fault::new(path, format!("{expected}, not `{word}`")))
}
