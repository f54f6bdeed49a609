//! Makes findings for the operator of what the reader and the checks have found.
//!
//! In: a place with words. Out: a [`ConfigError`] whose parts are one line each.

use super::decode::DecodeError;
use super::error::{ConfigError, Severity, one_line};
use super::tree::{Position, TreeError};

/// Makes a fault of `file` at a place.
pub(super) fn at(file: &str, at: Position, path: String, message: String) -> ConfigError {
    ConfigError {
        file: file.to_owned(),
        line: at.line,
        column: at.column,
        path,
        message: one_line(message),
        expected: None,
        suggestion: None,
        severity: Severity::Error,
    }
}

/// Makes a fault of what YAML forbids.
pub(super) fn of_tree(file: &str, e: TreeError) -> ConfigError {
    ConfigError {
        expected: e.expected.map(one_line),
        ..at(file, e.at, e.path, e.message)
    }
}

/// Makes a fault of what the decoder or a check has found.
pub(super) fn of_decoder(file: &str, e: DecodeError) -> ConfigError {
    let place = if e.on_key { e.place.key_at } else { e.place.at };
    ConfigError {
        expected: e.expected.map(one_line),
        suggestion: e.suggestion.map(one_line),
        ..at(file, place, e.place.path, e.message)
    }
}
