//! Asks the other edges for the node of a flow whose client this edge does not know.
//!
//! In: the exchange, before its node is chosen. Out: an entry in the plugin's table, if the answer comes in time; the
//! choice then recalls it. A client that this edge knows costs no question. Source: docs/scale.md, "A store for the
//! site".

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use pushgate_plugins::api::{Claim, NodeId, unix_seconds};
use pushgate_plugins::head::Head;
use tokio::time::timeout_at;

use super::assign::{self, ClientLeft};
use super::flow::Exchange;
use crate::clock;
use crate::route::{Decision, FirstDecision};
use crate::site::{self, Claims};
use crate::upstream::Reserved;

/// Chooses a node for the flow, and enters the flow there, as [`assign::decide`]; asks the other edges first if this
/// one does not know the client. `left` resolves when the client has left.
///
/// Errors: the client has left.
pub async fn decide(
    ex: &Exchange,
    head: Option<&Head>,
    left: impl Future<Output = ()>,
) -> Result<Decision, ClientLeft> {
    let Some(claims) = site::claims().filter(|c| c.serves()) else {
        return Ok(assign::decide(ex, head, false));
    };
    let first = assign::with_facts(ex, head, |facts, tried| {
        let first = ex.table.decide_or_ask(facts, tried);
        match first {
            FirstDecision::Decided(decision) => {
                assign::enter(ex, facts, &decision);
                Ok(decision)
            }
            FirstDecision::Ask(asked, choice) => {
                let choice = choice.map(Reserved::at);
                Err(Question::new(ex, claims, asked, choice, tried.to_vec()))
            }
        }
    });
    match first {
        Ok(decision) => Ok(decision),
        Err(question) => {
            // Boxed: few flows ask, but every future would have room for the wait.
            Box::pin(question.ask(left)).await?;
            Ok(assign::decide(ex, head, false))
        }
    }
}

/// A question for the other edges.
struct Question {
    claims: &'static Arc<Claims>,
    /// What is asked, in the order of the plugins.
    asked: Vec<Arc<dyn Claim>>,
    /// Counts as a flow of the chosen node meanwhile, so that flows that ask at once do not all choose the same.
    choice: Option<Reserved>,
    tried: Vec<NodeId>,
    until: Instant,
}

impl Question {
    fn new(
        ex: &Exchange,
        claims: &'static Arc<Claims>,
        asked: Vec<Arc<dyn Claim>>,
        choice: Option<Reserved>,
        tried: Vec<NodeId>,
    ) -> Question {
        // A flow that tries another node has waited already.
        let mut record = ex.record.lock();
        let until = record.tries().asks_until;
        let until = until.unwrap_or_else(|| Instant::now() + claims.wait());
        record.tries().asks_until = Some(until);
        Question {
            claims,
            asked,
            choice,
            tried,
            until,
        }
    }

    /// Waits until the plugins know what can be known, but no longer than `wait` of the store.
    ///
    /// Errors: the client has left.
    async fn ask(self, left: impl Future<Output = ()>) -> Result<(), ClientLeft> {
        let is_first = Instant::now() < self.until;
        let choice = self.choice.as_ref().map(|reserved| reserved.node.id);
        let asked = (self.asked.clone(), choice, self.tried);
        let told = self.claims.ask(asked, self.until);
        let in_time = tokio::select! {
            biased;
            told = timeout_at(self.until.into(), told) => told.is_ok(),
            () = left => return Err(ClientLeft),
        };
        // The next try of a flow that has waited already says nothing of the store.
        if in_time || is_first {
            self.claims.waited(in_time);
        }
        if let (false, Some(node)) = (in_time, choice) {
            // What was asked for is what the flow does, so that a late answer agrees with it if it can.
            let first = self.asked.iter().find(|claim| !claim.is_proved());
            if let Some(claim) = first {
                claim.presume(node, unix_seconds(clock::date()));
            }
        }
        Ok(())
    }
}
