//! What a node's agent has said so far, and what of it holds.
//!
//! In: answers of the agent, or why there was none; an operator's `up`. Out: the agent's verdict on the node. An agent
//! that does not answer changes nothing.

use super::agent_answer::{AgentAdmin, AgentAnswer, AgentHealth};
use super::node_status::{CheckResult, LastCheck};
use super::state::AgentVerdict;

/// The words of one agent.
#[derive(Clone, Debug, Default)]
pub struct AgentRecord {
    is_down: bool,
    admin: Option<AgentAdmin>,
    /// The word `drain` or `maint` that an operator has overruled.
    overruled: Option<AgentAdmin>,
    percent: Option<u32>,
    last: Option<LastCheck>,
}

impl AgentRecord {
    /// Notes an answer. Returns whether the agent did not answer before.
    pub fn heard(&mut self, answer: &AgentAnswer, last: LastCheck) -> bool {
        if let Some(health) = answer.health {
            self.is_down = health == AgentHealth::Down;
        }
        if let Some(admin) = answer.admin {
            self.admin = Some(admin);
            // An agent repeats its word with each answer; only another word is news.
            self.overruled = self.overruled.filter(|word| *word == admin);
        }
        self.percent = answer.percent.or(self.percent);
        self.is_silent(last)
    }

    /// Notes that there was no answer. Returns whether there was one before.
    pub fn missed(&mut self, last: LastCheck) -> bool {
        !self.is_silent(last)
    }

    /// Replaces the last question, and returns whether the one before had no answer.
    fn is_silent(&mut self, last: LastCheck) -> bool {
        let before = self.last.replace(last);
        before.is_some_and(|last| last.result != CheckResult::Pass)
    }

    /// Overrules `drain` and `maint` until the agent says another of its administrator's words. Returns whether it had
    /// said one of the two.
    pub fn overrule(&mut self) -> bool {
        let word = self.admin.filter(|word| *word != AgentAdmin::Ready);
        let is_news = word != self.overruled;
        self.overruled = word;
        word.is_some() && is_news
    }

    /// Whether an operator has overruled what the agent says.
    pub fn is_overruled(&self) -> bool {
        self.overruled.is_some()
    }

    /// Returns the percentage of the weight that the agent said last.
    pub fn percent(&self) -> Option<u32> {
        self.percent
    }

    /// Returns the last question and its outcome; `None`: none was asked.
    pub fn last(&self) -> Option<&LastCheck> {
        self.last.as_ref()
    }

    /// Returns what holds of its words.
    pub fn verdict(&self) -> AgentVerdict {
        match self.admin.filter(|_| self.overruled.is_none()) {
            _ if self.is_down => AgentVerdict::Down,
            Some(AgentAdmin::Maint) => AgentVerdict::Down,
            Some(AgentAdmin::Drain) => AgentVerdict::Drain,
            Some(AgentAdmin::Ready) | None => AgentVerdict::Up,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn last(result: CheckResult) -> LastCheck {
        LastCheck {
            result,
            said: String::new(),
            at: Instant::now(),
            took: Duration::ZERO,
        }
    }

    fn hear(record: &mut AgentRecord, said: &str) -> AgentVerdict {
        let answer = AgentAnswer::read(said.as_bytes()).expect("an answer");
        record.heard(&answer, last(CheckResult::Pass));
        record.verdict()
    }

    /// Aim: each part of an answer holds until the agent says another word of that part, whether it answers meanwhile or
    /// not. Fails if `up` ends a drain, or if a percentage or silence brings a node up.
    #[test]
    fn parts_of_an_answer_hold_apart() {
        let mut record = AgentRecord::default();
        for (said, verdict, percent) in [
            ("75%", AgentVerdict::Up, Some(75)),
            ("down", AgentVerdict::Down, Some(75)),
            ("50%", AgentVerdict::Down, Some(50)),
            ("drain", AgentVerdict::Down, Some(50)),
            ("up", AgentVerdict::Drain, Some(50)),
            ("maint", AgentVerdict::Down, Some(50)),
            ("up 100%", AgentVerdict::Down, Some(100)),
            ("ready", AgentVerdict::Up, Some(100)),
            ("stopped", AgentVerdict::Down, Some(100)),
            ("ready", AgentVerdict::Down, Some(100)),
            ("up", AgentVerdict::Up, Some(100)),
        ] {
            assert_eq!(hear(&mut record, said), verdict, "{said}");
            assert_eq!(record.percent(), percent, "{said}");
        }
        hear(&mut record, "drain 10%");
        assert!(record.missed(last(CheckResult::Fail)), "the first one");
        assert!(!record.missed(last(CheckResult::Error)), "still silent");
        assert_eq!(
            (record.verdict(), record.percent()),
            (AgentVerdict::Drain, Some(10)),
            "silence changes nothing"
        );
        let back = AgentAnswer::read(b"up").expect("an answer");
        assert!(record.heard(&back, last(CheckResult::Pass)), "it is back");
    }

    /// Aim: an operator's `up` stands above `drain` and `maint`, as long as the agent only repeats itself, but not above
    /// `down`. Fails if the next answer drains the node again, or if a later drain has no effect.
    #[test]
    fn an_operator_overrules_the_words_of_an_administrator() {
        let mut record = AgentRecord::default();
        assert!(!record.overrule());
        hear(&mut record, "drain");
        assert!(record.overrule());
        for (said, verdict) in [
            ("drain", AgentVerdict::Up),
            ("75%", AgentVerdict::Up),
            ("drain", AgentVerdict::Up),
            ("drain down", AgentVerdict::Down),
            ("drain up", AgentVerdict::Up),
            ("maint", AgentVerdict::Down),
            ("drain", AgentVerdict::Drain),
            ("ready", AgentVerdict::Up),
            ("drain", AgentVerdict::Drain),
        ] {
            assert_eq!(hear(&mut record, said), verdict, "{said}");
        }
        hear(&mut record, "down");
        assert!(record.overrule());
        assert_eq!(record.verdict(), AgentVerdict::Down);
    }
}
