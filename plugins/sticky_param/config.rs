//! The block `sticky_param:`, its faults and its defaults.

use std::time::Duration;

use serde::Deserialize;

use super::StickyParam;
use crate::api::Plugin;
use crate::context::{self, Build, PluginError};
use crate::memory::Keys;
use crate::sticky_ip::Mode;
use crate::sticky_session::Recall;
use crate::sticky_session::rule::Rule;
use crate::units::{MaybeSpan, Share};

/// As the cookie's: a working day.
const MAX_AGE: MaybeSpan = MaybeSpan(Some(Duration::from_secs(8 * 3_600)));

/// Block `sticky_param:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where requests carry the value, first found counts; 1 to 8 places.
    pub from: Vec<Recall>,
    /// Remember (`table`, default) or compute (`hash`).
    #[serde(default)]
    pub mode: Mode,
    /// Longest life of an assignment from when it was learned; from 1 s, or `none`; default 8h. Only
    /// with `table`.
    #[serde(default)]
    pub max_age: Option<MaybeSpan>,
    /// Part of `max_age` by which single assignments may live shorter; default 10%. Only with `table`.
    #[serde(default)]
    pub jitter: Option<Share>,
    /// Longest time without a live flow; from 1 s, or `none`; default 1h. Only with `table`.
    #[serde(default)]
    pub expiry: Option<MaybeSpan>,
    /// Most entries, about 130 bytes each; 1 to 100,000,000; default 1,000,000. Only with `table`.
    #[serde(default)]
    pub capacity: Option<usize>,
    /// Name of the table; listeners that name the same share it. Default: the listener's name. Only
    /// with `table`.
    #[serde(default)]
    pub table: Option<String>,
}

impl Config {
    /// Builds the plugin. Errors: mode tcp, places that cannot be, bounds, keys of the table with
    /// `hash`.
    pub fn build(&self, on: &Build<'_>) -> Result<Box<dyn Plugin>, Vec<PluginError>> {
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
            let why = "the value is in HTTP; expected mode http";
            faults.push(PluginError::new(None::<String>, why));
        }
        faults.extend(Recall::faults("from", &self.from));
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Box::new(StickyParam {
            rule: Rule {
                learn: Vec::new(),
                recall: self.from.clone(),
            },
            memory: keys.memory(on, MAX_AGE),
        }))
    }
}
