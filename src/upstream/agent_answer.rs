//! Reads what a node's agent says: a line of words such as `up 75%`, `drain` or `down # disk full`.
//!
//! In: the bytes of the line. Out: [`AgentAnswer`], or why it is none. Pure.
//! Source: HAProxy configuration manual, "agent-check".

use super::weight::{MAX_WEIGHT, WeightOrder};

/// Whether a node serves, as its agent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentHealth {
    /// It serves: `up`.
    Up,
    /// It does not: `down`, `stopped`, `fail`.
    Down,
}

/// An order of the administrator of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentAdmin {
    /// `ready`: takes back the other two.
    Ready,
    /// `drain`: gets no new clients.
    Drain,
    /// `maint`: is out of service.
    Maint,
}

/// One answer. What it leaves out stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentAnswer {
    /// Whether it serves.
    pub health: Option<AgentHealth>,
    /// The order of its administrator.
    pub admin: Option<AgentAdmin>,
    /// Part of the weight that the file gives the node, in percent, 0 to 1000.
    pub percent: Option<u32>,
    /// The line, for people: at most `SHOWN` characters, all printable.
    pub line: String,
}

/// Longest line of an agent, in bytes.
pub const MAX_LINE: usize = 512;
/// Most characters of a line that are shown.
const SHOWN: usize = 100;

impl AgentAnswer {
    /// Reads `said`, up to its first line end. Words are separated by blanks and commas, in any case; `#` begins a
    /// description. `maxconn:N` is legal and has no effect.
    ///
    /// Errors: no word, a word that is none of these, more than [`MAX_LINE`] bytes.
    pub fn read(said: &[u8]) -> Result<AgentAnswer, String> {
        let end = said.iter().position(|b| matches!(b, b'\r' | b'\n'));
        let line = &said[..end.unwrap_or(said.len())];
        if line.len() > MAX_LINE {
            return Err(format!("it said more than {MAX_LINE} bytes"));
        }
        let line = String::from_utf8_lossy(line);
        let mut answer = AgentAnswer {
            line: shown(&line),
            ..AgentAnswer::default()
        };
        let words = line.split('#').next().unwrap_or_default();
        let mut words = words
            .split([' ', '\t', ','])
            .filter(|w| !w.is_empty())
            .peekable();
        if words.peek().is_none() {
            return Err("it said nothing".to_owned());
        }
        for word in words {
            answer.add(&word.to_ascii_lowercase())?;
        }
        Ok(answer)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        match word {
            "up" => self.health = Some(AgentHealth::Up),
            "down" | "stopped" | "fail" => self.health = Some(AgentHealth::Down),
            "ready" => self.admin = Some(AgentAdmin::Ready),
            "drain" => self.admin = Some(AgentAdmin::Drain),
            "maint" => self.admin = Some(AgentAdmin::Maint),
            // A limit of the connections of a HAProxy; `max_flows` of the file limits ours.
            _ if word.starts_with("maxconn:") => {}
            _ => match word.parse() {
                Ok(WeightOrder::Percent(percent)) => self.percent = Some(percent),
                _ => {
                    return Err(format!(
                        "it said `{}`, expected up, down, ready, drain, maint, or a percentage up to {MAX_WEIGHT}%",
                        shown(word)
                    ));
                }
            },
        }
        Ok(())
    }
}

fn shown(text: &str) -> String {
    let legal = |c: char| if c.is_control() { '?' } else { c };
    text.trim().chars().map(legal).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(
        health: Option<AgentHealth>,
        admin: Option<AgentAdmin>,
        percent: Option<u32>,
    ) -> Option<(Option<AgentHealth>, Option<AgentAdmin>, Option<u32>)> {
        Some((health, admin, percent))
    }

    /// Fails if a word of HAProxy's agents is refused, or if a part that was not said is set.
    #[test]
    fn words_of_an_agent_are_understood() {
        use AgentAdmin::{Drain, Maint, Ready};
        use AgentHealth::{Down, Up};
        for (said, expected) in [
            ("", None),
            (" ,\t\n", None),
            ("\nup", None),
            ("# up", None),
            ("yes", None),
            ("up 75", None),
            ("75 %", None),
            ("-5%", None),
            ("1001%", None),
            ("upp", None),
            ("up 75%\n", answer(Some(Up), None, Some(75))),
            ("75%", answer(None, None, Some(75))),
            ("0%", answer(None, None, Some(0))),
            ("UP,100%\r\nnever read", answer(Some(Up), None, Some(100))),
            ("10% 20%", answer(None, None, Some(20))),
            ("drain", answer(None, Some(Drain), None)),
            ("ready up\n", answer(Some(Up), Some(Ready), None)),
            ("maint # by hand: up", answer(None, Some(Maint), None)),
            ("down#disk full\n", answer(Some(Down), None, None)),
            ("stopped", answer(Some(Down), None, None)),
            ("fail 0% maxconn:30", answer(Some(Down), None, Some(0))),
        ] {
            let read = AgentAnswer::read(said.as_bytes()).ok();
            let read = read.map(|a| (a.health, a.admin, a.percent));
            assert_eq!(read, expected, "{said:?}");
        }
    }

    /// Fails if a line of an agent can fill the log, or put a line of its own into it.
    #[test]
    fn a_line_is_shown_without_harm() {
        let long = format!("down # \x1b[2J{}", "x".repeat(400));
        let answer = AgentAnswer::read(long.as_bytes()).expect("an answer");
        assert_eq!(answer.line.chars().count(), SHOWN);
        assert!(answer.line.starts_with("down # ?[2Jxx"), "{}", answer.line);
        assert!(AgentAnswer::read(&[b'x'; MAX_LINE + 1]).is_err());
        let odd = AgentAnswer::read(b"\xff\x07up").expect_err("no word");
        assert!(odd.starts_with("it said `\u{fffd}?up`, expected"), "{odd}");
    }

    /// Fails if what an agent sends can panic the reader, or fill the log.
    #[test]
    fn any_bytes_are_read() {
        let mut rng = fastrand::Rng::with_seed(15);
        let pieces: [&[u8]; 9] = [
            b"up", b"75%", b" ", b",", b"#", b"\r", b"\n", b"\xc3", b"\0",
        ];
        let mut read = 0;
        for _ in 0..20_000 {
            let said: Vec<u8> = (0..rng.usize(..8))
                .flat_map(|_| match rng.usize(..12) {
                    n if n < pieces.len() => pieces[n].to_vec(),
                    _ => vec![rng.u8(..); rng.usize(..99)],
                })
                .collect();
            match AgentAnswer::read(&said) {
                Ok(answer) => {
                    read += 1;
                    assert!(!answer.line.chars().any(char::is_control));
                    assert!(answer.line.chars().count() <= SHOWN);
                }
                Err(why) => assert!(why.len() < 600 && !why.contains('\n'), "{why}"),
            }
        }
        assert!(read > 1000, "{read}");
    }
}
