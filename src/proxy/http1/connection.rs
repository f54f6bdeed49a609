//! Serves one client connection that speaks HTTP/1, one request after the other.
//!
//! In: the client's side. Out: an exchange for each request. A client whose head is illegal or late gets an
//! error answer here.
//! Source: RFC 9112 §9.3; FAULTS D1 to D11, D52.

use std::sync::Arc;

use super::client::{Client, Drain, NextHeadError};
use super::exchange::{Outcome, exchange};
use super::refuse::refuse;
use crate::observe::end_reason::EndReason;
use crate::proxy::conn::Conn;
use crate::proxy::service::Service;
use crate::stream::side::Side;

/// Serves the connection until one side closes it, a WebSocket takes it over, or a drain ends it.
pub async fn serve(side: Side, conn: Arc<Conn>, service: Arc<Service>) {
    let mut drain = Drain::new(service.drain.clone());
    let mut client = Client {
        side,
        ahead: Vec::new(),
    };
    let mut first = true;
    loop {
        let conf = conn.listener.conf.load_full();
        let head = client.next_head(&conf, first, &mut drain, &conn).await;
        drop(conf);
        first = false;
        let request = match head {
            Ok(request) => request,
            Err(e) => return Box::pin(turn_away(client, &conn, e)).await,
        };
        let draining = drain.has_begun();
        // Boxed: while a client is idle, or its answer is relayed, the task keeps no memory of this future.
        let outcome = Box::pin(exchange(client, &conn, request, &service.hooks, draining)).await;
        let next = match outcome {
            Outcome::Over(next) => next,
            Outcome::Answering(answer) => answer.run().await,
        };
        match next {
            Some(next) => client = next,
            None => return,
        }
    }
}

/// Answers a client whose head is illegal or late, and closes.
async fn turn_away(client: Client, conn: &Arc<Conn>, why: NextHeadError) {
    let (status, reason) = match why {
        NextHeadError::Closed => return,
        NextHeadError::Refused(error) => {
            let (listener, client) = (&conn.listener.name, conn.client);
            log::debug!("listener {listener}: refused the request head of {client}: {error:?}");
            (error.status(), EndReason::BadRequest)
        }
        NextHeadError::Late => ((408, "Request Timeout"), EndReason::HeadTimeout),
    };
    refuse(client.side, conn, "http/1.1", status, reason).await;
}
