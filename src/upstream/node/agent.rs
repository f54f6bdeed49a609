//! What a node's agent says, put in force: its state and its weight.
//!
//! In: answers of the agent. Out: a change of state or weight, and lines of the service log.
//! Source: HAProxy configuration manual, "agent-check".

use super::Node;
use crate::upstream::agent_answer::AgentAnswer;
use crate::upstream::agent_record::AgentRecord;
use crate::upstream::node_status::LastCheck;
use crate::upstream::state::AgentVerdict;

impl Node {
    /// Obeys an answer of its agent.
    pub fn agent_said(&self, answer: &AgentAnswer, last: LastCheck) {
        let (is_back, percent) = {
            let mut record = self.agent.lock();
            let is_back = record.heard(answer, last);
            self.facts.set_agent(record.verdict());
            (is_back, record.percent())
        };
        if is_back {
            log::info!("node {}: its agent answers again", self.name);
        }
        self.agent_weight(percent, &answer.line);
        self.settle(None, &format!("agent: {}", answer.line));
    }

    /// Notes that its agent did not answer, or not in words of ours.
    pub fn agent_missed(&self, last: LastCheck) {
        let why = last.said.clone();
        if self.agent.lock().missed(last) {
            log::warn!(
                "node {}: no answer of its agent: {why}; what it said before still holds",
                self.name
            );
        }
    }

    /// Returns what its agent has said.
    pub fn agent(&self) -> AgentRecord {
        self.agent.lock().clone()
    }

    /// Overrules the words `drain` and `maint` of its agent until the agent says another of these words. Called for an
    /// operator's `up`, before the order.
    pub fn overrule_agent(&self) {
        let mut record = self.agent.lock();
        if record.overrule() {
            log::info!("node {}: ordered up, against its agent", self.name);
        }
        self.facts.set_agent(record.verdict());
    }

    /// Forgets what an agent said, because the file names none any more.
    pub fn forget_agent(&self) {
        {
            let mut record = self.agent.lock();
            *record = AgentRecord::default();
            self.facts.set_agent(AgentVerdict::Up);
        }
        self.agent_weight(None, "none any more");
        self.settle(None, "its agent is gone");
    }
}
