//! A request that the node keeps until the test says what becomes of it: `/hold`.
//!
//! In: a request of any method, and [`Held`] of the node. Out: an echo of its body, or its connection's end
//! without an answer.

use std::io;

use super::endpoints::echo;
use super::{Conn, Request};

/// What becomes of requests for `/hold`, those that wait and those that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// They wait.
    Waits,
    /// They are answered with their body.
    Echo,
    /// Their connections are closed in order.
    Closes,
    /// Their connections are reset.
    Resets,
}

/// Waits for the test's word. False when the connection must end without an answer.
pub async fn serve(conn: &mut Conn, request: &Request) -> io::Result<bool> {
    let mut told = conn.shared.held.subscribe();
    let told = tokio::select! {
        told = told.wait_for(|held| *held != Held::Waits) => told.map(|held| *held),
        end = conn.ended() => return Err(end),
    };
    match told {
        Ok(Held::Echo) => echo(conn, request).await,
        Ok(Held::Resets) => {
            conn.reset_on_drop();
            Err(io::ErrorKind::ConnectionReset.into())
        }
        _ => Ok(false),
    }
}
