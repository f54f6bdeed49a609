//! Faults of a configuration file, each with its place and what was expected.
//!
//! In: facts of the reader, the decoder and the checks. Out: one line for each fault,
//! `file:line:column: path: message`, which editors and CI tools turn into links.

use std::fmt;

/// Most faults that one run reports; a file with more is broken at its root, not in its details.
pub const MAX_ERRORS: usize = 100;

/// Most names that a message lists.
const MAX_NAMES: usize = 8;

/// Most characters of a wrong value that a message repeats.
const MAX_ECHO: usize = 60;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    #[default]
    Error,
    /// The file runs, but does not do what it seems to.
    Warning,
}

/// One finding in a configuration file: a fault, or a warning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
pub struct ConfigError {
    /// The file as the operator named it.
    pub file: String,
    /// Line, from 1; 0 if the fault is the file itself (missing, a directory, too large).
    pub line: usize,
    /// Column in characters, from 1; 0 if `line` is 0.
    pub column: usize,
    /// YAML path, such as `listeners[0].plugins[1].host_route.hosts`; empty at the root.
    pub path: String,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What is legal there.
    pub expected: Option<String>,
    /// The nearest known word.
    pub suggestion: Option<String>,
    /// Whether the file is refused for it.
    pub severity: Severity,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(": warning")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(word) = &self.suggestion {
            write!(f, " (did you mean `{word}`?)")?;
        }
        Ok(())
    }
}

/// Every fault of a configuration, in the order of its files and lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts `found` by place, drops repetitions (a fault under a YAML alias is found once for each use) and
    /// keeps the first [`MAX_ERRORS`]. `None` if nothing was found.
    pub(super) fn of(mut found: Vec<ConfigError>, files: &[String]) -> Option<Self> {
        let file = |e: &ConfigError| files.iter().position(|file| *file == e.file);
        found.sort_by(|a, b| {
            let (a_file, b_file) = (file(a), file(b));
            (a_file, a.line, a.column, &a.path).cmp(&(b_file, b.line, b.column, &b.path))
        });
        found.dedup_by(|b, a| {
            let same = (a.line, a.column, &a.message) == (b.line, b.column, &b.message);
            same && a.file == b.file && a.line > 0
        });
        found.truncate(MAX_ERRORS);
        (!found.is_empty()).then_some(ConfigErrors(found))
    }

    /// The one fault of a file that could not even be read.
    pub(super) fn one(fault: ConfigError) -> Self {
        ConfigErrors(vec![fault])
    }

    /// Iterates over the faults in the order of their lines.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        if self.0.len() == MAX_ERRORS {
            write!(f, "\nonly the first {MAX_ERRORS} faults are shown")?;
        }
        Ok(())
    }
}

/// Shows a value of the file inside a message: one line, no control characters, bounded.
pub(super) fn echo(value: &str) -> String {
    let mut shown: String = value.chars().take(MAX_ECHO).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    shown
        .escape_debug()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'")
}

/// Makes a type's own message safe to print: one line, at most ten times as long as a value.
pub(super) fn echo_line(message: &str) -> String {
    message
        .chars()
        .filter(|c| !c.is_control())
        .take(10 * MAX_ECHO)
        .collect()
}

/// Escapes control characters, so that a name of the file cannot add a line to a message.
pub(super) fn one_line(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let mut line = String::with_capacity(message.len() + 16);
    for c in message.chars() {
        match c.is_control() {
            true => line.extend(c.escape_debug()),
            false => line.push(c),
        }
    }
    line
}

/// Lists the names that may stand in place of an unknown one, the first few of many; `None`: there are none.
pub(super) fn one_of<S: AsRef<str>>(known: &[S]) -> Option<String> {
    let shown = known.iter().take(MAX_NAMES);
    let shown: Vec<String> = shown
        .map(|name| format!("`{}`", echo(name.as_ref())))
        .collect();
    let more = if known.len() > MAX_NAMES { ", …" } else { "" };
    match shown.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        _ => Some(format!("one of {}{more}", shown.join(", "))),
    }
}

/// Finds the word of `known` that `word` was probably meant to be.
pub(crate) fn nearest<S: AsRef<str>>(
    word: &str,
    known: impl IntoIterator<Item = S>,
) -> Option<String> {
    let plain = |s: &str| s.to_lowercase().replace(['-', ' ', '.'], "_");
    let word = plain(word);
    known
        .into_iter()
        .map(|k| {
            let known = plain(k.as_ref());
            // The beginning of a word (`least`) is as good as a word with a few wrong letters.
            let short = word.len() >= 3 && known.starts_with(&word);
            let score = strsim::normalized_damerau_levenshtein(&word, &known);
            (if short { score.max(0.5) } else { score }, k)
        })
        // Below 0.5 more than half the letters differ, and a suggestion would mislead.
        .filter(|(score, _)| *score >= 0.5)
        // Among equally near words the first wins.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, k)| k.as_ref().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_offers_only_a_word_that_is_near() {
        let known = ["max_hidden", "head_timeout", "limits", "ls1", "ls2"];
        for (word, expected) in [
            ("zzz", None),
            ("", None),
            ("port", None),
            ("max-hidden", Some("max_hidden")),
            ("MaxHidden", Some("max_hidden")),
            ("limit", Some("limits")),
            ("max", Some("max_hidden")),
            ("head_timout", Some("head_timeout")),
            ("ls3", Some("ls1")),
        ] {
            assert_eq!(nearest(word, known).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn echo_shows_no_control_character_and_is_bounded() {
        assert_eq!(echo("a\u{1b}[31m\r\nb"), "a\\u{1b}[31m\\r\\nb");
        assert_eq!(echo(&"x".repeat(1000)).chars().count(), MAX_ECHO + 1);
        assert_eq!(echo("it's \"so\""), "it's \"so\"");
    }
}
