//! Lets a connection or a request wait until its turn comes at the rate of its client.
//!
//! In: the places of a client, the rates of its listener. Out: a future for what must wait. A turn that is
//! dropped before it came is given back to the client. Source: FAULTS D58; issue "one client cannot shut out
//! all others".

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::{Sleep, sleep};

use super::clients::Clients;
use super::listener::Listener;
use crate::config::units::Rate;
use crate::observe::metrics;
use crate::stream::client_pace::{Paced, Places};

/// A connection or request that waits for its turn. Ready when it may begin.
pub struct Turn {
    comes: Pin<Box<Sleep>>,
    clients: Arc<Clients>,
    places: Places,
    what: Paced,
    rate: Rate,
    has_come: bool,
}

impl Turn {
    /// Books the next turn of the client with `places` at `listener`; `None`: it has come, or there is no rate.
    pub fn book(listener: &Listener, what: Paced, places: Places) -> Option<Self> {
        let conf = listener.conf.load();
        let rate = match what {
            Paced::Connection => conf.connection_rate(),
            Paced::Request => conf.request_rate(),
        };
        let (rate, clients) = (rate?, &listener.clients);
        let wait = clients.pace.book(what, places, rate, Instant::now())?;
        metrics::get()
            .rate_waits
            .with_label_values(&[listener.name.as_str(), what.as_str()])
            .inc();
        Some(Turn {
            comes: Box::pin(sleep(wait)),
            clients: clients.clone(),
            places,
            what,
            rate,
            has_come: false,
        })
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.comes.as_mut().poll(cx));
        self.has_come = true;
        Poll::Ready(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.has_come {
            let pace = &self.clients.pace;
            pace.give_back(self.what, self.places, self.rate);
        }
    }
}
