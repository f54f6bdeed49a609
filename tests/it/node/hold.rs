//! Requests that the node holds until the test decides about them: `/hold`.
//!
//! In: a request of any method, and [`Held`] of the node. Out: an echo of its body, or its connection's end
//! without an answer.

use std::io;

use super::endpoints::echo;
use super::{Conn, Request};

/// How the node treats requests for `/hold`, waiting and future ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// They wait.
    Waits,
    /// They are answered with their own body.
    Echo,
    /// Their connections are closed in order.
    Closes,
    /// Their connections are reset.
    Resets,
}

/// Waits for the test's decision. False if the connection must end without an answer.
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
