//! Builds the tree from the YAML parser's events.
//!
//! In: text. Out: the tree, and a [`TreeError`] for what YAML or our limits on it forbid. No YAML loader is
//! used: a loader drops positions, keeps only the last of two equal keys, and expands aliases without a
//! limit.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::{Entry, Item, Kind, Node, Position, TreeError, show_key};
use crate::config::error::echo;

/// Most values of one file. Values behind an alias count at each use: ten lines of nested aliases would
/// otherwise become a billion values.
pub(in crate::config) const MAX_VALUES: usize = 50_000;

/// Deepest nesting; the deepest key of the model is at 8.
const MAX_DEPTH: usize = 32;

/// What an empty file lacks.
const EMPTY: &str = "the file is empty";

/// As [`parse`], for a file beside others, which may be empty.
pub(in crate::config) fn parse_part(text: &str) -> (Option<Node>, Vec<TreeError>) {
    match parse(text) {
        (None, errors) if errors.iter().all(|e| e.message == EMPTY) => {
            let nothing = Node {
                at: Position::new(1, 1),
                kind: Kind::Map(Vec::new()),
                stand_in: None,
            };
            (Some(nothing), Vec::new())
        }
        parsed => parsed,
    }
}

/// Parses `text`. The tree is `None` if the text cannot be parsed to its end. Repeated keys are reported and
/// left out.
pub(in crate::config) fn parse(text: &str) -> (Option<Node>, Vec<TreeError>) {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        text,
        end: end(text),
        anchors: HashMap::new(),
        values: 0,
        path: Vec::new(),
        errors: Vec::new(),
    };
    let node = builder
        .printable()
        .and_then(|()| builder.document())
        .map_err(|error| builder.errors.push(*error))
        .ok();
    (node, builder.errors)
}

/// Returns the place after the last character.
fn end(text: &str) -> Position {
    let text = text.replace("\r\n", "\n");
    let last = text.rsplit(['\r', '\n']).next().unwrap_or_default();
    Position::new(
        text.matches(['\r', '\n']).count() + 1,
        last.chars().count() + 1,
    )
}

type Built<T> = Result<T, Box<TreeError>>;

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    end: Position,
    /// Anchored values with their sizes.
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
    path: Vec<String>,
    errors: Vec<TreeError>,
}

impl<'t> Builder<'t> {
    /// Refuses characters that YAML does not allow (YAML 1.2.2 §5.1).
    fn printable(&self) -> Built<()> {
        let allowed = |c: char| {
            matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..)
                && !matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
        };
        // A byte order mark at the start says how the text is encoded.
        let marked = |(at, c): &(usize, char)| *at == 0 && *c == '\u{feff}';
        let mut chars = self.text.char_indices().filter(|c| !marked(c));
        let Some((start, c)) = chars.find(|(_, c)| !allowed(*c)) else {
            return Ok(());
        };
        let before = self.text.get(..start).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let at = Position::new(before.matches('\n').count() + 1, line.chars().count() + 1);
        let message = format!("character U+{:04X} is not allowed in YAML", c as u32);
        Err(self.error(
            at,
            &message,
            Some("printable text; `\"\\u0007\"` stands for any character"),
        ))
    }

    fn document(&mut self) -> Built<Node> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => {
                    return root.ok_or_else(|| {
                        let at = Position::new(1, 1);
                        self.error(at, EMPTY, Some("at least `listeners:`"))
                    });
                }
                (Event::DocumentStart(_), at) if root.is_some() => {
                    return Err(self.error(
                        at,
                        "a second YAML document starts here",
                        Some("one document"),
                    ));
                }
                (Event::DocumentStart(_), _) => {
                    let (event, at) = self.next()?;
                    root = Some(self.node(event, at, 0)?);
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Built<(Event<'t>, Position)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.place(&span.start))),
            Some(Err(e)) => Err(self.syntax(self.place(e.marker()), e.info())),
            None => Ok((Event::StreamEnd, Position::default())),
        }
    }

    /// Returns a mark's place. After a last line without a line end the parser counts a line too many.
    fn place(&self, mark: &Marker) -> Position {
        let at = Position::new(mark.line(), mark.col() + 1);
        at.min(self.end)
    }

    /// Puts the parser's error into our words. If a tab indents the line, the tab is the error.
    fn syntax(&self, at: Position, info: &str) -> Box<TreeError> {
        // The parser may notice a tab only on the next line, or name the value that the line would continue.
        let next = at.line + usize::from(info.contains("found a tab"));
        for line in [at.line, at.line.saturating_sub(1), next] {
            let content = self.line(line);
            let indent = content.len() - content.trim_start().len();
            if let Some(tab) = content.get(..indent).and_then(|i| i.find('\t')) {
                let at = Position::new(line, tab + 1);
                return self.error(at, "a tab indents this line", Some("spaces"));
            }
        }
        if self.line(at.line).contains("${") {
            let expected = "quotes around a variable: `\"${NAME}\"`";
            return self.error(at, &format!("not YAML: {info}"), Some(expected));
        }
        match info {
            "simple key expect ':'" | "simple key expected" => self.error(
                at,
                "the text before this place has no `:`",
                Some("`key: value`"),
            ),
            "mapping values are not allowed in this context" => self.error(
                at,
                "a second `:` in one value",
                Some("quotes around the value, or the key in its own line"),
            ),
            "while parsing node, found unknown anchor" => self.error(
                at,
                "this alias stands for nothing",
                Some("an anchor of that name above, such as `&name`"),
            ),
            other if other.contains("did not find expected ','") => self.error(
                at,
                "the list or block in brackets does not end here",
                Some("`,` or the bracket that closes it; an IPv6 address needs quotes: `\"[::1]:80\"`"),
            ),
            other
                if other.contains("did not find expected key")
                    || other.contains("did not find expected '-' indicator") =>
            {
                self.error(
                    at,
                    "this line continues no block above",
                    Some("the indentation of its neighbours"),
                )
            }
            other => self.error(at, &format!("not YAML: {other}"), None),
        }
    }

    /// Returns the text of a line, counted from 1.
    fn line(&self, number: usize) -> &'t str {
        let mut lines = self.text.lines();
        lines.nth(number.wrapping_sub(1)).unwrap_or_default()
    }

    fn error(&self, at: Position, message: &str, expected: Option<&str>) -> Box<TreeError> {
        Box::new(TreeError {
            at,
            path: self.path.concat(),
            message: message.to_owned(),
            expected: expected.map(str::to_owned),
        })
    }

    fn node(&mut self, event: Event<'t>, at: Position, depth: usize) -> Built<Node> {
        self.spend(1, at)?;
        if depth > MAX_DEPTH {
            let expected = format!("at most {MAX_DEPTH} levels");
            return Err(self.error(at, "nested too deep", Some(&expected)));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.no_tag(tag.as_deref(), at)?;
                let plain = style == ScalarStyle::Plain;
                (
                    Kind::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), at)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), at)?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(id) => return self.alias(id, at),
            other => {
                return Err(self.error(at, &format!("not YAML: unexpected {other:?}"), None));
            }
        };
        let node = Node {
            at,
            kind,
            stand_in: None,
        };
        if anchor > 0 {
            let count = node.count();
            self.anchors.insert(anchor, (node.clone(), count));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Built<Kind> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::List(items)),
                (event, at) => {
                    let number = items.len();
                    self.path.push(format!("[{number}]"));
                    let node = self.node(event, at, depth + 1)?;
                    self.path.pop();
                    items.push(Item { number, node });
                }
            }
        }
    }

    fn map(&mut self, depth: usize) -> Built<Kind> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Position> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Kind::Map(entries));
            }
            let Kind::Scalar { text: key, .. } = self.node(event, at, depth + 1)?.kind else {
                return Err(self.error(
                    at,
                    "a list or block is used as a key",
                    Some("a word (an IPv6 address needs quotes: `\"[::1]:80\"`)"),
                ));
            };
            self.path.push(show_key(&key, self.path.is_empty()));
            let (event, value_at) = self.next()?;
            let node = self.node(event, value_at, depth + 1)?;
            if let Some(first) = seen.get(&key) {
                let message = format!(
                    "key `{}` is there twice, first in line {}",
                    echo(&key),
                    first.line
                );
                let error = self.error(at, &message, None);
                self.errors.push(*error);
            } else {
                seen.insert(key.clone(), at);
                entries.push(Entry { key, at, node });
            }
            self.path.pop();
        }
    }

    /// Returns a copy of the anchored value. It keeps the anchor's positions, because a wrong value must be
    /// corrected there.
    fn alias(&mut self, id: usize, at: Position) -> Built<Node> {
        let Some((_, count)) = self.anchors.get(&id) else {
            return Err(self.error(at, "this alias is inside the value it stands for", None));
        };
        self.spend(*count, at)?;
        let copy = self.anchors.get(&id).map(|(node, _)| node.clone());
        copy.ok_or_else(|| self.error(at, "unknown alias", None))
    }

    fn spend(&mut self, values: usize, at: Position) -> Built<()> {
        self.values += values;
        if self.values > MAX_VALUES {
            let message =
                format!("more than {MAX_VALUES} values, aliases counted at each use, up to here");
            return Err(self.error(at, &message, None));
        }
        Ok(())
    }

    fn no_tag(&self, tag: Option<&Tag>, at: Position) -> Built<()> {
        match tag {
            None => Ok(()),
            Some(tag) => {
                let message = format!("YAML tag `{}`", echo(&tag.to_string()));
                Err(self.error(at, &message, Some("a value without tag")))
            }
        }
    }
}
