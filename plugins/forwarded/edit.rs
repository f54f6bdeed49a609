//! Edits of lists and of families of headers.
//!
//! In: a head. Out: the head without some names, or with one more element in a list, bounded.

use http::header::CONNECTION;
use http::{HeaderName, HeaderValue};
use pingora_http::RequestHeader;

use crate::api::EditError;

/// Removes every header whose name `which` picks.
pub fn remove(head: &mut RequestHeader, which: fn(&[u8]) -> bool) {
    let picked = |n: &&HeaderName| which(n.as_str().as_bytes());
    // Mostly there is none, and then nothing is allocated.
    while let Some(name) = head.headers.keys().find(picked).cloned() {
        head.remove_header(&name);
    }
}

/// Removes the names `which` picks from `Connection`, so that no hop takes those headers away.
pub fn unlist(head: &mut RequestHeader, which: fn(&[u8]) -> bool) -> Result<(), EditError> {
    let options = |v: &HeaderValue| {
        v.as_bytes()
            .split(|b| *b == b',')
            .any(|o| which(o.trim_ascii()))
    };
    if !head.headers.get_all(CONNECTION).iter().any(options) {
        return Ok(());
    }
    let lines = head.headers.get_all(CONNECTION).into_iter();
    let kept: Vec<_> = lines
        .flat_map(|v| v.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|o| !o.is_empty() && !which(o))
        .collect();
    let kept = kept.join(&b", "[..]);
    head.remove_header(&CONNECTION);
    if !kept.is_empty() {
        head.insert_header(CONNECTION, HeaderValue::from_bytes(&kept)?)?;
    }
    Ok(())
}

/// Appends `element` to the comma-separated list `name`, as one line of at most `most` elements;
/// those in front, the furthest from us, go first. Lines that are not text are left out.
pub fn append_to_list(
    head: &mut RequestHeader,
    name: HeaderName,
    element: &str,
    most: usize,
) -> Result<(), EditError> {
    let lines = head.headers.get_all(&name).into_iter();
    let text: Vec<_> = lines.filter_map(|v| v.to_str().ok()).collect();
    let mut list = text.join(", ");
    let excess = (list.split(',').count() + 1).saturating_sub(most);
    if excess > 0 && !list.is_empty() {
        let kept: Vec<_> = list.split(',').skip(excess).map(str::trim).collect();
        list = kept.join(", ");
    }
    if !list.trim().is_empty() {
        list.push_str(", ");
    }
    list.push_str(element);
    head.insert_header(name, HeaderValue::try_from(list)?)?;
    Ok(())
}
