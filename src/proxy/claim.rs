//! Asks the other edges for the node of a flow whose client this edge does not know.
//!
//! In: the exchange, before its node is chosen. Out: an entry in the plugin's table, if the answer comes in time; the
//! choice then recalls it. A client that this edge knows costs no question. Source: docs/scale.md, "A store for the
//! site".

use std::future::Future;
use std::sync::Arc;

use pushgate_plugins::api::{Claim, NodeId};
use pushgate_plugins::head::Head;
use tokio::time::timeout;

use super::assign::{self, ClientLeft};
use super::flow::Exchange;
use crate::site::{self, Claims};
use crate::upstream::Reserved;

/// A question for the other edges.
pub struct Question {
    claims: &'static Arc<Claims>,
    claim: Arc<dyn Claim>,
    /// Counts as a flow of the chosen node meanwhile, so that flows that ask at once do not all choose the same.
    choice: Option<Reserved>,
    tried: Vec<NodeId>,
}

impl Question {
    /// Returns what must be asked for the flow; `None`: nothing, as for every client that this edge knows.
    pub fn of(ex: &Exchange, head: Option<&Head>) -> Option<Question> {
        let claims = site::claims().filter(|c| c.serves())?;
        assign::with_facts(ex, head, |facts, tried| {
            let (claim, choice) = ex.table.claim(facts, tried)?;
            Some(Question {
                claims,
                claim,
                choice: choice.map(|node| node.reserve()),
                tried: tried.to_vec(),
            })
        })
    }

    /// Waits until the plugin knows what can be known, but no longer than `wait` of the store.
    ///
    /// Errors: the client has left.
    pub async fn ask(self, left: impl Future<Output = ()>) -> Result<(), ClientLeft> {
        let choice = self.choice.as_ref().map(|reserved| reserved.node.id);
        let told = self.claims.ask(self.claim, choice, self.tried);
        tokio::select! {
            biased;
            told = timeout(self.claims.wait(), told) => {
                self.claims.waited(told.is_ok());
                Ok(())
            }
            () = left => Err(ClientLeft),
        }
    }
}
