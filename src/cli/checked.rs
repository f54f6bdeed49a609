//! Command `check`: what is wrong with a file, and what an operator should look at.
//!
//! In: a path, and files of push servers. Out: a summary, JSON, or the file with every default, on standard
//! output; findings on standard error; the exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::conf_file::ConfFile;
use crate::config::error::MAX_ERRORS;
use crate::config::{self, Config, ConfigError, Places, Severity};
use crate::credentials::unix_now;
use crate::import;
use crate::tls::{Store, ends_soon};

mod names;
mod store;

/// What to check, and what to print.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    #[command(flatten)]
    pub conf: ConfFile,
    /// Print the file with every default if it has no error. Secrets are hidden.
    #[arg(short = 'T', long, conflicts_with = "json")]
    pub print: bool,
    /// Print errors and warnings as JSON.
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 if there is a warning.
    #[arg(long)]
    pub strict: bool,
    /// Also look the names of nodes up, and warn of those that have no address.
    #[arg(long)]
    pub online: bool,
    /// The push servers' own files (lightstreamer_conf.xml) to compare it with.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub lightstreamer: Vec<PathBuf>,
}

/// What was found in a file.
struct Checked {
    config: Option<Config>,
    findings: Vec<ConfigError>,
    /// What contradicts the push servers' files.
    contradictions: Vec<String>,
}

/// Checks the file and prints what was asked for. The exit code is 1 if the file has an error, contradicts
/// the push servers, or has a warning and `--strict` is given.
pub fn check(options: CheckOptions) -> ExitCode {
    let taken = options.lightstreamer.iter().find(|file| {
        let ending = file.extension().and_then(|e| e.to_str());
        matches!(ending, Some("yaml" | "yml"))
    });
    if let Some(file) = taken {
        let file = file.display();
        eprintln!(
            "pushgate: {file} is behind --lightstreamer, which takes push servers' files; use -c {file}"
        );
        return ExitCode::from(2);
    }
    let path = options.conf.clone().path();
    let checked = Checked::of(&path, &options);
    let warned = checked
        .findings
        .iter()
        .any(|f| f.severity == Severity::Warning);
    let good = checked.config.is_some()
        && checked.contradictions.is_empty()
        && !(options.strict && warned);
    let out = match options.json {
        true => Ok(checked.json(&path, good)),
        false => checked.told(&path, &options),
    };
    let printed = out.and_then(|text| print(&text).map_err(|e| e.to_string()));
    if let Err(why) = &printed {
        eprintln!("pushgate: {why}");
    }
    match good && printed.is_ok() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Prints `text`. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

impl Checked {
    fn of(path: &Path, options: &CheckOptions) -> Checked {
        let (config, places) = match Config::load_placed(path) {
            Ok(loaded) => loaded,
            Err(faults) => {
                return Checked {
                    config: None,
                    findings: faults.iter().cloned().collect(),
                    contradictions: Vec::new(),
                };
            }
        };
        let mut findings = config.warnings.clone();
        findings.extend(certificates(&config, &places));
        if options.online {
            findings.extend(names::unresolved(&config, &places));
            findings.extend(store::unreachable(&config, &places));
        }
        findings.sort_by_key(|f| (f.line, f.column));
        Checked {
            contradictions: contradictions(&config, &options.lightstreamer),
            config: Some(config),
            findings,
        }
    }

    /// Says on standard error what was found. Returns the text for standard output.
    ///
    /// Errors: the file cannot be printed.
    fn told(&self, path: &Path, options: &CheckOptions) -> Result<String, String> {
        for finding in &self.findings {
            eprintln!("{finding}");
        }
        if self.config.is_none() && self.findings.len() == MAX_ERRORS {
            eprintln!("only the first {MAX_ERRORS} faults are shown");
        }
        if !self.contradictions.is_empty() {
            eprintln!("pushgate: {}", lines(self.contradictions.clone()));
            return Ok(String::new());
        }
        let Some(config) = &self.config else {
            return Ok(String::new());
        };
        if !options.print {
            return Ok(format!("{}\n", summary(path, config)));
        }
        eprintln!("{}", summary(path, config));
        let text = config.effective()?;
        if let Some(why) = config::too_large(&text) {
            eprintln!("pushgate: with every default the file cannot be read again: {why}");
        }
        let hidden = match text.contains("***") {
            true => "; put the values back in place of ***",
            false => "",
        };
        Ok(format!(
            "# {} with every default{hidden}\n{text}",
            path.display()
        ))
    }

    fn json(&self, path: &Path, good: bool) -> String {
        let count = |of: fn(&Config) -> usize| self.config.as_ref().map(of);
        let whole = json!({
            "file": path.display().to_string(),
            "ok": good,
            "findings": self.findings,
            "contradictions": self.contradictions,
            "listeners": count(|c| c.listeners.len()),
            "pools": count(|c| c.pools.len()),
            "nodes": count(|c| c.nodes.len()),
        });
        format!("{whole:#}\n")
    }
}

fn contradictions(config: &Config, files: &[PathBuf]) -> Vec<String> {
    match import::read_all(files) {
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
        Ok(servers) if servers.is_empty() => Vec::new(),
        Ok(servers) => import::compare(config, &servers),
    }
}

/// Returns what `run` would log as a warning about certificates.
fn certificates(config: &Config, places: &Places) -> Vec<ConfigError> {
    // The file check has read the certificates, so an error means that a file has gone since.
    let Ok(store) = Store::load(config, &Store::default()) else {
        return Vec::new();
    };
    let all = store.iter().flat_map(|(name, loaded)| {
        let now = unix_now();
        let soon = config
            .certificates
            .get(name)
            .and_then(|files| ends_soon(name, files, loaded, now));
        let warnings = loaded.warnings(now).into_iter();
        let warnings = warnings.map(move |w| format!("certificate {name}: {w}"));
        soon.into_iter()
            .chain(warnings)
            .map(move |message| places.warning(["certificates", name.as_str()], message, None))
    });
    all.collect()
}

fn summary(conf: &Path, config: &Config) -> String {
    format!(
        "{}: ok ({} listeners, {} pools, {} nodes)",
        conf.display(),
        config.listeners.len(),
        config.pools.len(),
        config.nodes.len()
    )
}

/// Joins faults, one on each line.
pub(super) fn lines<T: ToString>(all: Vec<T>) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join("\npushgate: ")
}
