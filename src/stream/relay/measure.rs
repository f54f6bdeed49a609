//! Notes what a relay moved and for whom it waits, and tells a lost peer from one that closed.
//!
//! In: the state after a step. Out: a note in the flow's [`Meter`]; the silence before a loss.

use std::sync::Arc;

use super::{Kind, Relay};
use crate::observe::end_reason::EndReason;
use crate::stream::kernel;
use crate::stream::meter::{Lost, Measured, Meter, Peer, Waits};

impl Relay {
    /// Notes this relay's bytes and waits in `meter` from now on.
    pub fn measure(&mut self, meter: &Arc<Meter>) {
        let [client, node] = [&self.client, &self.node].map(|side| side.tcp().map(|tcp| tcp.fd()));
        self.measured = Some(Measured::begin(meter, client, node));
    }

    /// Notes bytes and waits after a step that was not the last.
    pub(super) fn note(&mut self) {
        let waits = match self.kind {
            Kind::Layer4 | Kind::WebSocket => self.waits_up(),
            Kind::Exchange { .. } if self.request_over => Waits::NONE,
            Kind::Exchange { .. } => self.waits_up(),
        };
        let waits = waits
            .with(Waits::TO_CLIENT, self.down.waits_for_sink())
            .with(Waits::READS_NODE, self.down.waits_for_source());
        self.note_waits(waits);
    }

    /// As [`Relay::note`], before the answer begins. `is_read`: the node's bytes would be read at once.
    pub(super) fn note_asked(&mut self, is_read: bool) {
        let waits = match self.request_over {
            true => Waits::ANSWER,
            false => {
                let waits = self.waits_up();
                waits.with(Waits::REQUEST, waits.has(Waits::READS_CLIENT))
            }
        };
        let waits = waits
            .with(Waits::TO_CLIENT, !is_read)
            .with(Waits::READS_NODE, is_read);
        self.note_waits(waits);
    }

    fn waits_up(&self) -> Waits {
        Waits::NONE
            .with(Waits::TO_NODE, self.up.waits_for_sink())
            .with(Waits::READS_CLIENT, self.up.waits_for_source())
    }

    fn note_waits(&mut self, waits: Waits) {
        if let Some(measured) = &mut self.measured {
            let bytes = (self.up.passed(), self.down.passed());
            measured.note(bytes, self.down.held(), waits);
        }
    }

    /// Returns the peer that was lost, if `reason` is the end of one whose connection is broken. A TLS peer that
    /// closed without close_notify, or within its message, was not lost.
    pub(super) fn lost(&self, reason: EndReason) -> Option<Lost> {
        let (peer, side) = match reason {
            EndReason::ClientFailed => (Peer::Client, &self.client),
            EndReason::NodeFailed => (Peer::Node, &self.node),
            _ => return None,
        };
        let info = kernel::info(side.tcp()?.fd()).filter(|info| info.is_broken)?;
        let unanswered = (info.silent > info.since_sent).then_some(info.silent);
        let silent = self.measured.as_ref()?.silent_before_loss(unanswered);
        Some(Lost { peer, silent })
    }
}
