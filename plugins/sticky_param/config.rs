//! Defines the block `sticky_param:`, its faults and its defaults.

use std::time::Duration;

use serde::Deserialize;

use super::StickyParam;
use crate::api::Plugin;
use crate::context::{self, Build, PluginError};
use crate::memory::{Capacity, Keys, Mode};
use crate::sticky_session::Recall;
use crate::sticky_session::rule::Rule;
use crate::units::{MaybeSpan, Share};
use crate::written::TableKeys;

/// Default `max_age`, a working day as for the cookie.
pub(super) const MAX_AGE: MaybeSpan = MaybeSpan(Some(Duration::from_secs(8 * 3_600)));

/// Block `sticky_param:`.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Places of the value in requests; the first one found counts; 1 to 8 places.
    pub from: Vec<Recall>,
    /// Whether assignments are remembered (`table`, default) or computed (`hash`).
    #[serde(default)]
    pub mode: Mode,
    /// Longest life of an assignment, counted from when it was learned; from 1 s, or `none`; default 8h. Only
    /// with `table`.
    #[serde(default)]
    pub max_age: Option<MaybeSpan>,
    /// Largest part of `max_age` by which an assignment may live shorter; default 10%. Only with `table`.
    #[serde(default)]
    pub jitter: Option<Share>,
    /// Longest time that a value may be without a live flow; from 1 s, or `none`; default 1h. Only with
    /// `table`.
    #[serde(default)]
    pub expiry: Option<MaybeSpan>,
    /// Most entries, 130 to 200 bytes each; 1 to 100,000,000; default 1,000,000. A full table evicts the oldest
    /// idle entry of the client address (IPv6: /64) that has the most. Only with `table`.
    #[serde(default, deserialize_with = "Capacity::read")]
    pub capacity: Option<usize>,
    /// Name of the table; listeners with the same name share it. Default: the listener's name. Only with
    /// `table`.
    #[serde(default)]
    pub table: Option<String>,
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
        if self.mode == Mode::Table {
            keys.fill(MAX_AGE);
        }
    }

    /// Builds the plugin. Errors: mode tcp, illegal places, values out of bounds, keys of the table with
    /// `hash`.
    pub fn build(&self, on: &Build<'_>) -> Result<Plugin, Vec<PluginError>> {
        let keys = Keys {
            word: super::NAME,
            mode: self.mode,
            max_age: self.max_age,
            jitter: self.jitter,
            expiry: self.expiry,
            capacity: self.capacity,
            cut_at_max_age: false,
            table: self.table.as_deref(),
        };
        let mut faults = keys.faults();
        if on.mode != context::Mode::Http {
            let why = "the value is read from HTTP; expected mode http";
            faults.push(PluginError::new(None::<String>, why));
        }
        faults.extend(Recall::faults("from", &self.from));
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Plugin::sticky(StickyParam {
            rule: Rule {
                learn: Vec::new(),
                recall: self.from.clone(),
            },
            memory: keys.memory(on, MAX_AGE),
        }))
    }
}
