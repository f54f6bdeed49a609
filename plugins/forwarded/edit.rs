//! Edits headers whose value is a list.
//!
//! In: a head. Out: the head with fewer names in `Connection`, or with one more element in a bounded list.
//! Source: RFC 9110 §5.6.1, §7.6.1.

use std::fmt::{Arguments, Write};

use crate::api::{EditError, visible};
use crate::head::Edits;

/// Removes the names that `which` selects from `Connection`, so that no hop removes those headers.
pub fn unlist(edits: &mut Edits, which: fn(&[u8]) -> bool) -> Result<(), EditError> {
    let mut options = edits.values("connection").flat_map(options);
    if !options.any(which) {
        return Ok(());
    }
    drop(options);
    let all = edits.values("connection").flat_map(self::options);
    let kept: Vec<_> = all.filter(|o| !o.is_empty() && !which(o)).collect();
    let kept = kept.join(&b", "[..]);
    edits.remove("connection");
    if !kept.is_empty() {
        edits.set("Connection", kept)?;
    }
    Ok(())
}

fn options(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// Appends `element` to the comma-separated list `name`, as one line of at most `most` elements. Drops the
/// first elements, which are furthest from us, beyond that. Skips lines that are not text.
pub fn append_to_list(
    edits: &mut Edits,
    name: &str,
    element: Arguments<'_>,
    most: usize,
) -> Result<(), EditError> {
    let text: Vec<_> = edits.values(name).filter_map(visible).collect();
    if text.is_empty() {
        edits.set_fmt(name, element)?;
        return Ok(());
    }
    let mut list = text.join(", ");
    let excess = (list.split(',').count() + 1).saturating_sub(most);
    if excess > 0 && !list.is_empty() {
        let kept: Vec<_> = list.split(',').skip(excess).map(str::trim).collect();
        list = kept.join(", ");
    }
    if !list.trim().is_empty() {
        list.push_str(", ");
    }
    list.write_fmt(element)?;
    edits.set(name, list)?;
    Ok(())
}
