//! Finds an id in a JSON object at the beginning of a body, a line or a message.
//!
//! In: the first bytes of a body, in any split; names of members. Out: the id that is the string of such a
//! member of the outermost object, which may stand behind Engine.IO's packet type and length (`0{"sid":…`,
//! `96:0{…`). Each byte is looked at once. Members of inner objects are never ids: they may hold what a client
//! sent.
//! Source: RFC 8259 §2, §7; Engine.IO protocol 3 and 4, "open"; SignalR, `negotiate`.

use super::rule::{Id, MAX_ID, hash};

/// Searches one body.
#[derive(Default)]
pub struct Json {
    state: State,
    /// Depth of objects and lists.
    depth: u32,
    next: Next,
    /// The bytes of the line in front of the object.
    before: Vec<u8>,
    /// The string that is read, decoded; cut when it is longer than any id.
    text: Vec<u8>,
    /// Place of the name whose value follows.
    wanted: Option<usize>,
    /// The id found for the first of the names that has one, and the name's place.
    found: Option<(usize, Id)>,
}

/// Where the next byte is.
#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    /// Before an object.
    #[default]
    Before,
    /// In a line that has no object at its beginning.
    Skip,
    /// In an object, between strings.
    Between,
    /// In a string.
    Text,
    /// Behind the backslash in a string.
    Escape,
    /// In the digits of `\u`: how many are missing, and their value so far.
    Digits(u8, u32),
}

/// The token that the outermost object must have next.
#[derive(Clone, Copy, Default, PartialEq)]
enum Next {
    #[default]
    Name,
    Value,
}

/// Longest text before an object: a packet's type and the digits of a length.
const MAX_BEFORE: usize = 12;

impl Json {
    /// Reads the next bytes. Returns the id if nothing that follows could change it.
    pub fn read(&mut self, bytes: &[u8], names: &[&str]) -> Option<Id> {
        bytes.iter().find_map(|b| self.step(*b, names))
    }

    /// Returns the id found in an object that was cut.
    pub fn cut(&mut self) -> Option<Id> {
        self.found.take().map(|(_, id)| id)
    }

    fn step(&mut self, b: u8, names: &[&str]) -> Option<Id> {
        match self.state {
            State::Before => self.before(b),
            State::Skip => self.line(b),
            State::Between => return self.between(b),
            State::Text => match b {
                b'"' => return self.text_ends(names),
                b'\\' => self.state = State::Escape,
                b => self.push(&[b]),
            },
            State::Escape => self.escape(b),
            State::Digits(left, value) => self.digit(left, value, b),
        }
        None
    }

    /// Ends what stood before, at a line end or at the separator of Engine.IO's packets.
    fn line(&mut self, b: u8) {
        if matches!(b, b'\n' | 0x1e) {
            self.state = State::Before;
            self.before.clear();
        }
    }

    fn before(&mut self, b: u8) {
        match b {
            b'{' if matches!(&*self.before, [] | b"0" | [.., b':', b'0']) => {
                (self.state, self.depth, self.next) = (State::Between, 1, Next::Name);
                self.wanted = None;
            }
            b'0'..=b'9' | b':' if self.before.len() < MAX_BEFORE => self.before.push(b),
            b' ' | b'\t' | b'\r' => {}
            b'\n' | 0x1e => self.before.clear(),
            _ => self.state = State::Skip,
        }
    }

    fn between(&mut self, b: u8) -> Option<Id> {
        match b {
            b'"' => {
                self.text.clear();
                self.state = State::Text;
            }
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    (self.state, self.before) = (State::Before, Vec::new());
                    return self.cut();
                }
            }
            b':' if self.depth == 1 => self.next = Next::Value,
            b',' if self.depth == 1 => (self.next, self.wanted) = (Next::Name, None),
            _ => {}
        }
        None
    }

    fn text_ends(&mut self, names: &[&str]) -> Option<Id> {
        self.state = State::Between;
        if self.depth > 1 {
            return None;
        }
        if self.next == Next::Name {
            self.wanted = names.iter().position(|n| n.as_bytes() == self.text);
            return None;
        }
        let place = self.wanted.take()?;
        let id = hash(&self.text)?;
        if self.found.is_none_or(|(other, _)| place < other) {
            self.found = Some((place, id));
        }
        // No later member comes before the first name.
        (place == 0).then(|| self.cut())?
    }

    fn escape(&mut self, b: u8) {
        self.state = State::Text;
        match b {
            b'u' => self.state = State::Digits(4, 0),
            b'b' => self.push(b"\x08"),
            b'f' => self.push(b"\x0c"),
            b'n' => self.push(b"\n"),
            b'r' => self.push(b"\r"),
            b't' => self.push(b"\t"),
            b => self.push(&[b]),
        }
    }

    fn digit(&mut self, left: u8, value: u32, b: u8) {
        let digit = char::from(b).to_digit(16).unwrap_or_default();
        let value = value * 16 + digit;
        self.state = match left {
            1 => State::Text,
            left => State::Digits(left - 1, value),
        };
        if left == 1 {
            // Half of a pair beyond U+FFFF: no server writes such ids.
            let char = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
            self.push(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.depth == 1 && self.text.len() <= MAX_ID {
            self.text.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["token", "id"];

    /// Reads `body` in pieces of `size` bytes.
    fn found(body: &[u8], size: usize) -> Option<Id> {
        let mut json = Json::default();
        let whole = body.chunks(size).find_map(|b| json.read(b, &NAMES));
        whole.or_else(|| json.cut())
    }

    /// Aim: an id is found in any split, where a server tells it and nowhere else. Fails if a client's data in
    /// an inner object, a later packet or a list counts as an id.
    #[test]
    fn ids_are_found_where_servers_tell_them() {
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(MAX_ID + 1));
        let nested = format!("{}\"id\":\"S\"", "[{".repeat(500));
        for (body, want) in [
            (r#"{"id":"S1"}"#, Some("S1")),
            ("{\n  \"x\" : [1, {}],\n  \"id\" : \"S1\"\n}", Some("S1")),
            (r#"0{"id":"S1","upgrades":["websocket"]}"#, Some("S1")),
            (r#"96:0{"id":"S1"}2:40"#, Some("S1")),
            ("\n0{\"id\":\"S1\"}", Some("S1")),
            ("2probe\x1e0{\"id\":\"S1\"}", Some("S1")),
            (r#"{"id":"S1","token":"T1","x":1}"#, Some("T1")),
            (r#"{"token":"T1","id":"S1"}"#, Some("T1")),
            (r#"{"id":"S1","id":"S2"}"#, Some("S1")),
            (r#"{"id":"S1""#, Some("S1")),
            (r#"{"id":"a\u002bb\/c\\\"\u00e4"}"#, Some("a+b/c\\\"ä")),
            (r#"{"id":"S1"#, None),
            (r#"{"id":""}"#, None),
            (r#"{"id":7,"x":"S1"}"#, None),
            (r#"{"x":{"id":"S1"},"y":[{"id":"S2"}]}"#, None),
            (r#"{"x":"id","y":"\"id\":\"S1\""}"#, None),
            (r#"[{"id":"S1"}]"#, None),
            (r#"40{"id":"S1"}"#, None),
            (r#"42["m",{"id":"S1"}]"#, None),
            (r#"data: {"id":"S1"}"#, None),
            (r#"x{"id":"S1"}"#, None),
            (r#"1234567890123:0{"id":"S1"}"#, None),
            ("}}]]{\"id\":\"S1\"}", None),
            (&long, None),
            (&nested, None),
            ("", None),
        ] {
            let want = want.map(|id| hash(id.as_bytes()).expect("an id"));
            for size in 1..=body.len().clamp(1, 40) {
                assert_eq!(found(body.as_bytes(), size), want, "{body:.60} by {size}");
            }
        }
    }

    /// Aim: nothing a node sends panics. Fails if a bracket too many or a broken escape does.
    #[test]
    fn broken_json_is_passed_over() {
        let mut rng = crate::testing::Rng(5);
        let letters = b"{}[]\",:\\u0 a\nid\x1e\xff";
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.below(60))
                .map(|_| letters[rng.below(letters.len())])
                .collect();
            found(&bytes, 7);
        }
    }
}
