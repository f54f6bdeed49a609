//! Finds the id of a session in a node's answer, and in the requests that belong to the session.
//!
//! In: heads and the first bytes of bodies. Out: the id's hash, SHA-256 cut to 128 bits. So a table holds 16
//! bytes whatever ids look like, no attacker can aim two ids at one entry, and every edge and process
//! computes the same.

use std::borrow::Cow;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::api::{BODY_PREFIX, Flow};
use crate::sticky_cookie::header;

/// Longest id that is used, in bytes; Lightstreamer's have some 20 bytes.
pub(super) const MAX_ID: usize = 512;

/// The hash of an id.
pub type Id = [u8; 16];

/// The place of a session's id in a node's answer.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Learn {
    /// In a line that begins with this prefix, within the first 4 KiB of the body or of a WebSocket's
    /// messages. The id is what follows, up to a comma, a blank or the line's end. Behind a prefix that ends
    /// with a quote it is what follows up to the next quote, and the line need not end.
    Line(String),
    /// In the string of this name, in a JSON object at the beginning of the body or of a line or message,
    /// within the same first 4 KiB. Engine.IO's packet type and length may stand before the object.
    Json(String),
    /// In the cookie of this name that the node sets.
    Cookie(String),
    /// In the header of this name.
    Header(String),
}

/// The place of a session's id in a request.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Recall {
    /// In this parameter of the query.
    Query(String),
    /// In this parameter of a form in the first 4 KiB of the body.
    Form(String),
    /// In this cookie.
    Cookie(String),
    /// In this header.
    Header(String),
    /// In the path: the segment after this prefix.
    Path(String),
}

/// All places of one block.
pub struct Rule {
    pub learn: Vec<Learn>,
    pub recall: Vec<Recall>,
}

impl Rule {
    /// Returns the hash of the request's id, from the first place that has one.
    pub fn recall(&self, flow: &Flow<'_>) -> Option<Id> {
        self.recall.iter().find_map(|place| place.find(flow))
    }

    /// Returns whether only the body can hold the id.
    pub fn wants_body(&self, flow: &Flow<'_>) -> bool {
        let form = |place: &Recall| matches!(place, Recall::Form(_));
        let posts = |method: &str| matches!(method, "POST" | "PUT" | "PATCH");
        flow.request.is_some_and(|r| posts(r.method()))
            && self.recall.iter().any(form)
            && self.recall(flow).is_none()
    }

    /// Returns whether an answer's body may hold an id.
    pub fn reads_body(&self) -> bool {
        let in_body = |place: &Learn| matches!(place, Learn::Line(_) | Learn::Json(_));
        self.learn.iter().any(in_body)
    }

    /// Returns the names of members of a JSON object that may hold an id.
    pub fn json_names(&self) -> Vec<&str> {
        let names = self.learn.iter().filter_map(|place| match place {
            Learn::Json(name) => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }

    /// Returns the hash of the id in a line of a body. `is_whole`: the line has its end.
    pub fn of_line(&self, line: &[u8], is_whole: bool) -> Option<Id> {
        self.learn.iter().find_map(|place| match place {
            Learn::Line(prefix) if prefix.ends_with('"') => {
                let rest = line.strip_prefix(prefix.as_bytes())?;
                let end = rest.iter().position(|b| *b == b'"')?;
                hash(&rest[..end])
            }
            Learn::Line(prefix) if is_whole => {
                let rest = line.strip_prefix(prefix.as_bytes())?;
                let end = |b: &u8| matches!(*b, b',' | b' ' | b'\t' | b'\r' | b'\n');
                hash(rest.split(end).next().unwrap_or_default())
            }
            _ => None,
        })
    }

    /// Returns the hashes of the ids in an answer's head.
    pub fn of_head(&self, head: &[u8]) -> Vec<Id> {
        let lines = head.split(|b| *b == b'\n').skip(1);
        let fields = lines.filter_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        });
        fields
            .filter_map(|(name, value)| self.of_field(name, value))
            .collect()
    }

    fn of_field(&self, name: &[u8], value: &[u8]) -> Option<Id> {
        self.learn.iter().find_map(|place| match place {
            Learn::Header(own) if name.eq_ignore_ascii_case(own.as_bytes()) => hash(value),
            Learn::Cookie(own) if name.eq_ignore_ascii_case(b"set-cookie") => {
                let pair = value.split(|b| *b == b';').next()?;
                let (key, value) = split_at(pair, b'=')?;
                (key.trim_ascii() == own.as_bytes()).then(|| hash(value.trim_ascii()))?
            }
            _ => None,
        })
    }
}

impl Recall {
    fn find(&self, flow: &Flow<'_>) -> Option<Id> {
        let request = flow.request?;
        match self {
            Recall::Query(name) => parameter(request.query()?.as_bytes(), name),
            Recall::Form(name) => parameter(whole_parameters(flow.body), name),
            Recall::Cookie(name) => {
                let mut values = header::values(request, name.as_bytes());
                hash(values.next()?)
            }
            Recall::Header(name) => hash(request.value(name)?),
            Recall::Path(prefix) => {
                let rest = request.path().strip_prefix(prefix.as_str())?;
                hash(rest.split('/').next()?.as_bytes())
            }
        }
    }
}

/// Returns the body without a last parameter that may have been cut.
fn whole_parameters(body: &[u8]) -> &[u8] {
    if body.len() < BODY_PREFIX {
        return body;
    }
    let end = body.iter().rposition(|b| separates(*b));
    &body[..end.unwrap_or(0)]
}

/// Returns whether `b` ends a parameter. TLCP sends one form a line.
fn separates(b: u8) -> bool {
    matches!(b, b'&' | b'\r' | b'\n')
}

/// Returns the hash of the value of the first parameter called `name`.
fn parameter(form: &[u8], name: &str) -> Option<Id> {
    let mut pairs = form.split(|b| separates(*b));
    pairs.find_map(|pair| {
        let (key, value) = split_at(pair, b'=')?;
        (key == name.as_bytes()).then(|| hash(&decoded(value)))?
    })
}

fn split_at(pair: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = pair.iter().position(|b| *b == at)?;
    Some((&pair[..i], &pair[i + 1..]))
}

/// Decodes `%2B` and `+` as in forms; leaves an illegal escape unchanged.
fn decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(value);
    }
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        out.push(match (first, behind) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    (high * 16 + low) as u8
                }
                _ => b'%',
            },
            (other, _) => *other,
        });
    }
    Cow::Owned(out)
}

/// Returns the hash of `id`; `None` if it cannot be an id.
pub(super) fn hash(id: &[u8]) -> Option<Id> {
    if id.is_empty() || id.len() > MAX_ID {
        return None;
    }
    let whole = Sha256::digest(id);
    whole.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_forms_have_them() {
        for (value, want) in [
            ("", ""),
            ("S1", "S1"),
            ("a%2Bb", "a+b"),
            ("a+b", "a b"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz", "%zz"),
            ("%c3%A4", "ä"),
        ] {
            assert_eq!(*decoded(value.as_bytes()), *want.as_bytes(), "{value}");
        }
    }

    #[test]
    fn a_parameter_that_may_be_cut_is_not_read() {
        let long = format!("a={}&LS_session=S1", "x".repeat(BODY_PREFIX - 16));
        for (body, found) in [
            ("LS_session=S1", true),
            ("LS_op=x&LS_session=S1", true),
            ("LS_op=x\r\nLS_session=S1\r\n", true),
            ("xLS_session=S1", false),
            ("LS_session=", false),
            (&long[..BODY_PREFIX], false),
        ] {
            let got = parameter(whole_parameters(body.as_bytes()), "LS_session");
            assert_eq!(got.is_some(), found, "{body:.60}");
        }
        assert_eq!(hash(&[b'x'; MAX_ID + 1]), None);
    }
}
